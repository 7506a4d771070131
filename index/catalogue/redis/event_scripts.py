"""The Lua scripts of users' events in Redis. Each runs atomically.

Keys (all under one prefix):
meta             schema, log_id, secret, truncated: the last number that compaction dropped; session_gap, if any
events           the head: how many numbers were assigned so far, to events and removals
log              number -> "b" time "\\n" owner of an event, "r" "\\n" owner of a removal
users            ids of all users
types            type -> "kind weight" of the types of events that have a setting
user:ID          a sorted set by time of "number item_id event_id", and "type value" if it has one, each on a line; and
                 its attribution, see `index.catalogue.redis.outcome_scripts`
typed:TYPE ID    (on two lines) item -> how many events of this type the user has with it
once:ID          a set of the event ids
removed:OWNER    a sorted set by time of "number item_id type number-of-the-removal", until it is forgotten; in schema
                 2 without type

Schema 1 had no log, schema 2 no types, and a set items:ID of all items of a user, which is no longer kept. Schema 3 had
no outcomes of recommendations.

The owner is the user, or for a deleted user "\\n" and the number of the removal, since ids have no line breaks.
"""

from index.catalogue.redis.outcome_scripts import FORGET_SUMS, FORGET_USER, OUTCOME

_COMMON = """
local META, HEAD, LOG, USERS, BASE = unpack(KEYS)
local function text(number) return string.format('%.0f', number) end
local function padded(number) return string.format('%016.0f', number) end
local function head() return tonumber(redis.call('GET', HEAD) or '0') end
local function parsed(record) return string.match(record, '^(.)([^\\n]*)\\n(.*)$') end
local function event(member) return string.match(member, '^(%d+)\\n([^\\n]*)\\n([^\\n]*)\\n?([^\\n]*)') end
local function typed(type, user) return BASE .. 'typed:' .. type .. '\\n' .. user end
local function silent()
  local found, types = {}, redis.call('HGETALL', BASE .. 'types')
  for i = 1, #types, 2 do
    if string.sub(types[i + 1], 1, 7) ~= 'history' then found[types[i]] = true end
  end
  return found
end
local function pages(key, take)
  local at = 0
  while true do
    local page = redis.call('ZRANGE', key, at, at + 999, 'WITHSCORES')
    if #page == 0 then return end
    take(page)
    at = at + 1000
  end
end
local function each(key, take)
  pages(key, function(page)
    for i = 1, #page, 2 do take(page[i], page[i + 1]) end
  end)
end
"""

_GUARD = (
    _COMMON
    + """
local meta = redis.call('HMGET', META, 'log_id', 'truncated')
if not meta[1] then return {'empty'} end
if meta[1] ~= ARGV[1] then return {'other', meta[1]} end
if head() < tonumber(ARGV[2]) then return {'behind', text(head())} end
"""
)

# ARGV: schema, id for a new log, a new secret, then types and what they are in turn, to begin with. What was stored
# before there was a log is not in it: it is counted from the start.
OPEN = (
    _COMMON
    + """
if redis.call('EXISTS', META) == 0 then
  redis.call('HSET', META, 'schema', '2', 'log_id', ARGV[2], 'truncated', text(head()))
end
if redis.call('HGET', META, 'schema') == '2' then
  redis.call('HSET', META, 'schema', '3')
  redis.call('HSET', BASE .. 'types', unpack(ARGV, 4))
end
if redis.call('HGET', META, 'schema') == '3' then
  redis.call('HSET', META, 'schema', ARGV[1], 'secret', ARGV[3])
end
local meta = redis.call('HMGET', META, 'schema', 'log_id', 'secret')
return {meta[1], meta[2], text(head()), meta[3]}
"""
)

# Only before the log exists. ARGV: a user's former id, and the present id, or '' to forget the user.
RENAME_USER = (
    _COMMON
    + """
local user, now = ARGV[1], ARGV[2]
local events = BASE .. 'user:' .. user
if now ~= '' then
  each(events, function(member, time)
    local item, id = string.match(member, '^%d+\\n([^\\n]*)\\n(.*)$')
    if id == '' or redis.call('SADD', BASE .. 'once:' .. now, id) == 1 then
      redis.call('ZADD', BASE .. 'user:' .. now, time, member)
      redis.call('SADD', BASE .. 'items:' .. now, item)
      redis.call('SADD', USERS, now)
    end
  end)
end
redis.call('UNLINK', events, BASE .. 'items:' .. user, BASE .. 'once:' .. user)
return redis.call('SREM', USERS, user)
"""
)

# ARGV: log id, a number seen; then user, item, time, event id, type, value and attribution in turn, each may be ''.
ADD = (
    _GUARD
    + OUTCOME
    + """
local new = 0
for i = 3, #ARGV, 7 do
  local user, item, time, id, type, value, attribution = unpack(ARGV, i, i + 6)
  if id == '' or redis.call('SADD', BASE .. 'once:' .. user, id) == 1 then
    local number = redis.call('INCR', HEAD)
    redis.call('SADD', USERS, user)
    local member = padded(number) .. '\\n' .. item .. '\\n' .. id
    if type ~= '' or value ~= '' then member = member .. '\\n' .. type .. '\\n' .. value end
    if attribution ~= '' and outcome(user, item, type, value, attribution, 1) then
      member = member .. '\\n' .. attribution
    end
    redis.call('ZADD', BASE .. 'user:' .. user, time, member)
    if type ~= '' then redis.call('HINCRBY', typed(type, user), item, 1) end
    redis.call('HSET', LOG, text(number), 'b' .. time .. '\\n' .. user)
    new = new + 1
  end
end
return {'ok', text(head()), new}
"""
)

# ARGV: log id, a number seen, user.
DELETE = (
    _GUARD
    + OUTCOME
    + """
local user = ARGV[3]
local events, before = BASE .. 'user:' .. user, BASE .. 'removed:' .. user
local count = redis.call('ZCARD', events)
if count == 0 and redis.call('EXISTS', before) == 0 then return {'ok', text(head()), 0} end
local removal = text(redis.call('INCR', HEAD))
local owner = '\\n' .. removal
local removed = BASE .. 'removed:' .. owner
local function rename(numbers)
  local renamed = {}
  for i, record in ipairs(redis.call('HMGET', LOG, unpack(numbers))) do
    if record then
      local kind, time = parsed(record)
      renamed[#renamed + 1] = numbers[i]
      renamed[#renamed + 1] = kind .. time .. '\\n' .. owner
    end
  end
  if #renamed > 0 then redis.call('HSET', LOG, unpack(renamed)) end
end
local types = {}
pages(events, function(page)
  local moved, numbers = {}, {}
  for i = 1, #page, 2 do
    local number, item, _, type = event(page[i])
    types[type] = true
    local _, _, _, _, value, attribution = full(page[i])
    if attribution then outcome(user, item, type, value, attribution, -1) end
    moved[i], moved[i + 1] = page[i + 1], number .. '\\n' .. item .. '\\n' .. type .. '\\n' .. removal
    numbers[#numbers + 1] = text(tonumber(number))
  end
  redis.call('ZADD', removed, unpack(moved))
  rename(numbers)
end)
each(before, function(member, time)
  local number, when = string.match(member, '^(%d+)\\n.*\\n(%d+)$')
  redis.call('ZADD', removed, time, member)
  rename({text(tonumber(number)), when})
end)
redis.call('HSET', LOG, removal, 'r\\n' .. owner)
redis.call('UNLINK', events, before, BASE .. 'items:' .. user, BASE .. 'once:' .. user)
forget_outcomes(user)
for type in pairs(types) do redis.call('UNLINK', typed(type, user)) end
redis.call('SREM', USERS, user)
return {'ok', text(head()), count}
"""
)

# ARGV: log id, a number seen, user, event id.
REMOVE = (
    _GUARD
    + OUTCOME
    + """
local user, id = ARGV[3], ARGV[4]
local events = BASE .. 'user:' .. user
if redis.call('SREM', BASE .. 'once:' .. user, id) == 0 then return {'ok', text(head()), 0} end
local gone, time
each(events, function(member, score)
  local _, _, own = event(member)
  if own == id then gone, time = member, score end
end)
local number, item, _, type = event(gone)
local _, _, _, _, value, attribution = full(gone)
if attribution then outcome(user, item, type, value, attribution, -1) end
local removal = text(redis.call('INCR', HEAD))
redis.call('ZREM', events, gone)
if type ~= '' and redis.call('HINCRBY', typed(type, user), item, -1) < 1 then
  redis.call('HDEL', typed(type, user), item)
end
if redis.call('EXISTS', events) == 0 then redis.call('SREM', USERS, user) end
redis.call('ZADD', BASE .. 'removed:' .. user, time, number .. '\\n' .. item .. '\\n' .. type .. '\\n' .. removal)
redis.call('HSET', LOG, removal, 'r\\n' .. user)
return {'ok', text(head()), 1}
"""
)

HEAD = _GUARD + "return {'ok', text(head()), false}"

FORGET = _GUARD + FORGET_SUMS
FORGET_OF_USER = _GUARD + OUTCOME + FORGET_USER

# ARGV: log id, a number seen, after, how many numbers at most, window. Returns the last number, then for each owner
# with changes: after a removal, all members of user:OWNER and of removed:OWNER; otherwise neither, but the members of
# user:OWNER before its changes (the last one first), from the first to the last change, and after them.
CHANGES = (
    _GUARD
    + """
local after, window = tonumber(ARGV[3]), tonumber(ARGV[5])
if after < tonumber(meta[2]) then return {'truncated', meta[2]} end
local seq = math.min(head(), after + tonumber(ARGV[4]))
local ignored = silent()
local session_gap = redis.call('HGET', META, 'session_gap')
local gap = session_gap and (session_gap == 'inf' and math.huge or tonumber(session_gap))
local owners, ranges = {}, {}
for from = after + 1, seq, 1000 do
  local numbers = {}
  for number = from, math.min(from + 999, seq) do numbers[#numbers + 1] = text(number) end
  for i, record in ipairs(redis.call('HMGET', LOG, unpack(numbers))) do
    if record then
      local kind, time, owner = parsed(record)
      local range = ranges[owner]
      if not range then
        range = {}
        ranges[owner], owners[#owners + 1] = range, owner
      end
      if kind == 'b' then
        local number = from + i - 1
        time = tonumber(time)
        local first, last = range.first, range.last
        if not first or time < first.time then range.first = {time = time, number = number} end
        if not last or time >= last.time then range.last = {time = time, number = number} end
      end
    end
  end
end
local function number_at(key, rank)
  return tonumber(string.match(redis.call('ZRANGE', key, rank, rank)[1], '^%d+'))
end
local function rank_of(key, event)
  local time = string.format('%.17g', event.time)
  local low, high = redis.call('ZCOUNT', key, '-inf', '(' .. time), redis.call('ZCOUNT', key, '-inf', time) - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if number_at(key, middle) < event.number then low = middle + 1 else high = middle end
  end
  return low
end
-- Members that are in the log up to seq, with their times, from one rank to another: at most `most`. Where sessions
-- count and `near` is a time, whole sessions with so many items, apart from the session that goes on from there.
local function taken(key, rank, last, most, near)
  local found, page, step = {}, math.max(most, 1), last < rank and -1 or 1
  local count, counting, items, ended = 0, not (gap and near), {}, false
  local function enough() return ended or (counting and not (gap and near) and count >= most) end
  while not enough() and (last - rank) * step >= 0 do
    local ends = step > 0 and math.min(last, rank + page - 1) or math.max(last, rank - page + 1)
    local rows = redis.call('ZRANGE', key, math.min(rank, ends), math.max(rank, ends), 'WITHSCORES')
    for i = 1, #rows, 2 do
      local at = step > 0 and i or #rows - i
      local number, item, _, type = event(rows[at])
      if not ignored[type] and tonumber(number) <= seq then
        if gap and near then
          local time = tonumber(rows[at + 1])
          if math.abs(time - near) > gap then
            ended = ended or count >= most
            counting, items = true, {}
          end
          near = time
        end
        if not enough() then
          found[#found + 1] = rows[at]
          found[#found + 1] = rows[at + 1]
          if not (gap and near) then
            count = count + 1
          elseif counting and not items[item] then
            items[item] = true
            count = count + 1
          end
        end
      end
    end
    rank = ends + step
    page = math.min(2 * page, 1000)
  end
  return found
end
local function newly_removed(key)
  local found = false
  each(key, function(member)
    if tonumber(string.match(member, '(%d+)$')) > after then found = true end
  end)
  return found
end
local slices = {}
for _, owner in ipairs(owners) do
  local events, removed, range = BASE .. 'user:' .. owner, BASE .. 'removed:' .. owner, ranges[owner]
  if newly_removed(removed) then
    slices[#slices + 1] = {redis.call('ZRANGE', events, 0, -1, 'WITHSCORES'),
      redis.call('ZRANGE', removed, 0, -1, 'WITHSCORES')}
  elseif range.first then
    local first, last = rank_of(events, range.first), rank_of(events, range.last)
    local before = first > 0 and taken(events, first - 1, 0, window, range.first.time) or {}
    local behind = taken(events, last + 1, math.max(last + 1, redis.call('ZCARD', events) - 1), window,
      range.last.time)
    slices[#slices + 1] = {{}, {}, before, taken(events, first, last, last - first + 1), behind}
  end
end
return {'ok', text(head()), {text(seq), slices, redis.call('HGETALL', BASE .. 'types'), session_gap}}
"""
)

_COMPACT = """
local truncated = tonumber(meta[2])
local function forget(owner, number)
  local key, gone = BASE .. 'removed:' .. owner, {}
  each(key, function(member)
    if tonumber(string.match(member, '(%d+)$')) <= number then gone[#gone + 1] = member end
  end)
  for i = 1, #gone, 1000 do redis.call('ZREM', key, unpack(gone, i, math.min(i + 999, #gone))) end
end
local function compact(through)
  for from = truncated + 1, through, 1000 do
    local numbers = {}
    for number = from, math.min(from + 999, through) do numbers[#numbers + 1] = text(number) end
    for i, record in ipairs(redis.call('HMGET', LOG, unpack(numbers))) do
      if record then
        local kind, _, owner = parsed(record)
        if kind == 'r' then forget(owner, from + i - 1) end
      end
    end
    redis.call('HDEL', LOG, unpack(numbers))
  end
  if through > truncated then redis.call('HSET', META, 'truncated', text(through)) end
end
"""

# ARGV: log id, a number seen, through, how many numbers at most. Answers how far it came.
COMPACT = (
    _GUARD
    + _COMPACT
    + """
local through = math.min(tonumber(ARGV[3]), head(), truncated + tonumber(ARGV[4]))
compact(through)
return {'ok', text(head()), text(math.max(through, truncated))}
"""
)

# ARGV: log id, a number seen, the gap between sessions or '', types and what they are in turn. Nobody can follow the
# log across this: the number of the change and all before it are forgotten. Call COMPACT first, since this does the
# rest at once.
SET_TYPES = (
    _GUARD
    + _COMPACT
    + """
redis.call('DEL', BASE .. 'types')
if ARGV[4] then redis.call('HSET', BASE .. 'types', unpack(ARGV, 4)) end
redis.call('HDEL', META, 'session_gap')
if ARGV[3] ~= '' then redis.call('HSET', META, 'session_gap', ARGV[3]) end
if head() > 0 then
  redis.call('INCR', HEAD)
  compact(head())
end
return {'ok', text(head()), 1}
"""
)

# ARGV: an item or '' for all, then users. Answers how many of them have events, then "day type" (on two lines) and the
# number of events in turn.
DAYS = (
    _COMMON
    + """
local item, users, counts = ARGV[1], 0, {}
for i = 2, #ARGV do
  local has = false
  each(BASE .. 'user:' .. ARGV[i], function(member, time)
    local _, item_id, _, type = event(member)
    if item == '' or item_id == item then
      has = true
      local key = text(math.floor(tonumber(time) / 86400)) .. '\\n' .. type
      counts[key] = (counts[key] or 0) + 1
    end
  end)
  if has then users = users + 1 end
end
local answer = {users}
for key, count in pairs(counts) do
  answer[#answer + 1] = key
  answer[#answer + 1] = count
end
return answer
"""
)
