"""The Lua functions that count outcomes of recommendations in Redis, as each event is stored or taken out.

Keys, under the prefix of `index.catalogue.redis.event_scripts`:
outcomes:ID      (recommendation item, on two lines) -> letters of the types that the user's events have for them
days             days that have counts
counts:DAY       "placement|version|experiment|variant|model|snapshot|position|source|cold|NAME" -> sum
trials           placement|experiment|variant -> the day of its newest answer
trial:TRIAL      name of a moment -> sum over the users
tried:ID         "placement|experiment|variant|NAME" -> the user's own counts

The attribution of an event is one line of its member: recommendation (in hex), day, trial or "", then the first nine
parts of the field above, each behind a blank. Of a place that was filled at random, its propensity follows.
"""

OUTCOME = """
local LETTERS = {shown = 's', clicked = 'c', cart = 'a', purchase = 'p'}
local NAMES = {'shown', 'clicked', 'cart', 'purchase', 'value'}
local SQUARES = {{'shown', 'shown'}, {'clicked', 'clicked'}, {'purchase', 'purchase'}, {'value', 'value'},
  {'shown', 'clicked'}, {'shown', 'purchase'}, {'shown', 'value'}}
local function precise(number) return string.format('%.17g', number) end
local function full(member)
  return string.match(member, '^(%d+)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]+)$')
end
local function own_counts(user, trial)
  local found = {}
  for _, name in ipairs(NAMES) do
    found[name] = tonumber(redis.call('HGET', BASE .. 'tried:' .. user, trial .. '|' .. name) or '0')
  end
  return found
end
local function count_user(trial, before, after)
  local key = BASE .. 'trial:' .. trial
  local function add(name, change)
    if change ~= 0 then redis.call('HINCRBYFLOAT', key, name, precise(change)) end
  end
  add('users', (after.shown > 0 and 1 or 0) - (before.shown > 0 and 1 or 0))
  for _, name in ipairs(NAMES) do add(name, after[name] - before[name]) end
  for _, pair in ipairs(SQUARES) do
    local one, other = pair[1], pair[2]
    add(one .. '_' .. other, after[one] * after[other] - before[one] * before[other])
  end
end
-- Count an event with an attribution (sign 1), or take it out (-1). False: an event of the type is counted already.
local function outcome(user, item, type, value, attribution, sign)
  local recommendation, day, trial, group = string.match(attribution, '^(%S*) (%S*) (%S*) (%S*)')
  local field, key, letter = recommendation .. '\\n' .. item, BASE .. 'outcomes:' .. user, LETTERS[type]
  local before = redis.call('HGET', key, field) or ''
  local known = string.find(before, letter, 1, true)
  if (sign == 1) == (known ~= nil) then return false end
  local after = sign == 1 and before .. letter or string.gsub(before, letter, '')
  if after == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, after) end
  local change = {}
  if before == '' or after == '' then change.shown = sign end
  if type ~= 'shown' then change[type] = sign end
  local worth = type == 'purchase' and value ~= '' and tonumber(value) or 0
  if worth ~= 0 then change.value, change.value2 = sign * worth, sign * worth * worth end
  if sign == 1 then redis.call('SADD', BASE .. 'days', day) end
  if redis.call('SISMEMBER', BASE .. 'days', day) == 1 then
    for name, by in pairs(change) do
      redis.call('HINCRBYFLOAT', BASE .. 'counts:' .. day, group .. '|' .. name, precise(by))
    end
  end
  if trial == '' then return true end
  local newest = redis.call('HGET', BASE .. 'trials', trial)
  if sign == 1 and (not newest or tonumber(newest) < tonumber(day)) then
    redis.call('HSET', BASE .. 'trials', trial, day)
  elseif not newest then
    return true
  end
  local was = own_counts(user, trial)
  local now = {}
  for _, name in ipairs(NAMES) do
    now[name] = was[name] + (change[name] or 0)
    redis.call('HSET', BASE .. 'tried:' .. user, trial .. '|' .. name, precise(now[name]))
  end
  count_user(trial, was, now)
  return true
end
-- What is left of a user's outcomes after all events were taken out one by one: of answers that were forgotten.
local function forget_outcomes(user)
  local trials, fields = {}, redis.call('HKEYS', BASE .. 'tried:' .. user)
  for _, field in ipairs(fields) do trials[string.match(field, '^(.*)|[^|]*$')] = true end
  for trial in pairs(trials) do
    if redis.call('HEXISTS', BASE .. 'trials', trial) == 1 then
      count_user(trial, own_counts(user, trial), {shown = 0, clicked = 0, cart = 0, purchase = 0, value = 0})
    end
  end
  redis.call('UNLINK', BASE .. 'tried:' .. user, BASE .. 'outcomes:' .. user)
end
"""

# ARGV: log id, a number seen, first day that is kept. The sums of days and experiments; FORGET_USER does the rest.
FORGET_SUMS = """
for _, day in ipairs(redis.call('SMEMBERS', BASE .. 'days')) do
  if tonumber(day) < tonumber(ARGV[3]) then
    redis.call('UNLINK', BASE .. 'counts:' .. day)
    redis.call('SREM', BASE .. 'days', day)
  end
end
local trials = redis.call('HGETALL', BASE .. 'trials')
for i = 1, #trials, 2 do
  if tonumber(trials[i + 1]) < tonumber(ARGV[3]) then
    redis.call('UNLINK', BASE .. 'trial:' .. trials[i])
    redis.call('HDEL', BASE .. 'trials', trials[i])
  end
end
return {'ok', text(head()), 0}
"""

# ARGV: log id, a number seen, first day that is kept, user. Of the type shown only where that makes no history.
FORGET_USER = """
local first, user = tonumber(ARGV[3]), ARGV[4]
local events, gone = BASE .. 'user:' .. user, 0
local drop = silent()['shown']
local changed = {}
each(events, function(member, time)
  local _, item, _, type, _, attribution = full(member)
  local recommendation, day = string.match(attribution or '', '^(%S*) (%S*)')
  if day and tonumber(day) < first then
    gone = gone + 1
    changed[#changed + 1] = {member, time, attribution, type, item}
    redis.call('HDEL', BASE .. 'outcomes:' .. user, recommendation .. '\\n' .. item)
  end
end)
for _, one in ipairs(changed) do
  local member, time, attribution, type, item = unpack(one)
  redis.call('ZREM', events, member)
  if drop and type == 'shown' then
    local key = typed(type, user)
    if redis.call('HINCRBY', key, item, -1) < 1 then redis.call('HDEL', key, item) end
  else
    redis.call('ZADD', events, time, string.sub(member, 1, #member - #attribution - 1))
  end
end
local fields = redis.call('HKEYS', BASE .. 'tried:' .. user)
for _, field in ipairs(fields) do
  if redis.call('HEXISTS', BASE .. 'trials', string.match(field, '^(.*)|[^|]*$')) == 0 then
    redis.call('HDEL', BASE .. 'tried:' .. user, field)
  end
end
if redis.call('EXISTS', events) == 0 then
  redis.call('SREM', USERS, user)
  redis.call('UNLINK', BASE .. 'once:' .. user)
end
return {'ok', text(head()), gone}
"""
