"""The Lua scripts of the catalogue in Redis. Each runs atomically.

Keys (all under one prefix):
meta           catalogue_id, schema, head, epoch, run, truncated
log            a stream: one entry per change, whose id is the sequence number
items          the items, scored by the number of their last change
epochs         random names, scored by the first number that was assigned in each
words, words:* all words, and for each word the ids of the items that contain it
publications   a list of "seq time snapshot_id", oldest first
garbage        numbers of superseded records, which compaction may drop
placements     of each placement "seq rules"

A restarted server assigns numbers in a new epoch. A client that remembers a number with its epoch therefore notices
that an older state of the server was restored, even if numbers have passed the remembered one since.
"""

KEYS = ("meta", "log", "items", "epochs", "words", "publications", "garbage", "placements")

_GUARD = """
local META, LOG, ITEMS, EPOCHS, WORDS, PUBLICATIONS, GARBAGE, PLACEMENTS = unpack(KEYS)
local state = redis.call('HMGET', META, 'catalogue_id', 'head', 'epoch')
if not state[1] then return {'empty'} end
if state[1] ~= ARGV[1] then return {'other', state[1]} end
if tonumber(state[2]) < tonumber(ARGV[2]) then return {'behind', state[2]} end
if ARGV[2] ~= '0' and ARGV[3] ~= state[3] then
  if redis.call('ZREVRANGEBYSCORE', EPOCHS, ARGV[2], '-inf', 'LIMIT', 0, 1)[1] ~= ARGV[3] then
    return {'forked'}
  end
end
local head, epoch = tonumber(state[2]), state[3]
local function text(number) return string.format('%.0f', number) end
local function answer(result) return {'ok', text(head), epoch, result} end
local function record(seq) return redis.call('XRANGE', LOG, seq, seq)[1] end
local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end
"""

# ARGV: catalogue id, largest number seen, its epoch, name for a new epoch, time; then the arguments of each script.
_WRITE = (
    _GUARD
    + """
local function number()
  head = head + 1
  return text(head)
end
local function begin()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
  if run ~= redis.call('HGET', META, 'run') then
    epoch = ARGV[4]
    redis.call('ZADD', EPOCHS, head + 1, epoch)
    redis.call('HSET', META, 'run', run, 'epoch', epoch)
  end
end
local function finish(result)
  redis.call('HSET', META, 'head', text(head))
  return answer(result)
end
local function each(words, take)
  for word in string.gmatch(words, '[^\\n]+') do take(word) end
end
local function unindex(item_id, words)
  each(words, function(word)
    redis.call('SREM', WORDS .. ':' .. word, item_id)
    if redis.call('EXISTS', WORDS .. ':' .. word) == 0 then redis.call('ZREM', WORDS, word) end
  end)
end
local function index(item_id, words)
  each(words, function(word)
    redis.call('SADD', WORDS .. ':' .. word, item_id)
    if redis.call('SCARD', WORDS .. ':' .. word) == 1 then redis.call('ZADD', WORDS, 0, word) end
  end)
end
local function forget(seq)
  redis.call('ZADD', GARBAGE, seq, seq)
  return field(record(seq)[2], 'words')
end
"""
)

READ_HEAD = _GUARD + "return answer(false)"

# ARGV: item id, words, body and the number of the item's last change ('': any) in turn.
PUT = (
    _WRITE
    + """
for i = 6, #ARGV, 4 do
  local expected = ARGV[i + 3]
  if expected ~= '' and tonumber(redis.call('ZSCORE', ITEMS, ARGV[i]) or '0') ~= tonumber(expected) then
    return {'changed', ARGV[i]}
  end
end
begin()
local updated = 0
for i = 6, #ARGV, 4 do
  local item_id, words, body = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local before, seq = redis.call('ZSCORE', ITEMS, item_id), number()
  local old = ''
  if before then
    updated = updated + 1
    old = forget(before)
  end
  if old ~= words then
    unindex(item_id, old)
    index(item_id, words)
  end
  redis.call('XADD', LOG, seq .. '-0', 'op', 'put', 'catalogue', ARGV[1], 'time', ARGV[5], 'before', before or '0',
    'item_id', item_id, 'words', words, 'body', body)
  redis.call('ZADD', ITEMS, seq, item_id)
end
return finish(updated)
"""
)

# ARGV: item ids.
DELETE = (
    _WRITE
    + """
for i = 6, #ARGV do
  if not redis.call('ZSCORE', ITEMS, ARGV[i]) then return {'missing', ARGV[i]} end
end
begin()
for i = 6, #ARGV do
  local before, seq = redis.call('ZSCORE', ITEMS, ARGV[i]), number()
  unindex(ARGV[i], forget(before))
  redis.call('XADD', LOG, seq .. '-0', 'op', 'delete', 'catalogue', ARGV[1], 'time', ARGV[5], 'before', before,
    'item_id', ARGV[i])
  redis.call('ZREM', ITEMS, ARGV[i])
  redis.call('ZADD', GARBAGE, seq, seq)
end
return finish(false)
"""
)

# KEYS[9]: a lease. ARGV: snapshot id, token of the lease or ''.
PUBLISH = (
    _WRITE
    + """
if ARGV[7] ~= '' and redis.call('GET', KEYS[9]) ~= ARGV[7] then return {'lost'} end
begin()
local seq = number()
redis.call('XADD', LOG, seq .. '-0', 'op', 'publish', 'catalogue', ARGV[1], 'time', ARGV[5], 'snapshot_id', ARGV[6])
redis.call('RPUSH', PUBLICATIONS, seq .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
return finish(false)
"""
)

# ARGV: name, rules, or no rules to delete it. Compaction may drop the record: `placements` has the current rules.
PLACE = (
    _WRITE
    + """
local name, rules = ARGV[6], ARGV[7]
if not rules and redis.call('HEXISTS', PLACEMENTS, name) == 0 then return {'no placement', name} end
begin()
local seq = number()
local fields = {'op', 'place', 'catalogue', ARGV[1], 'time', ARGV[5], 'placement', name}
if rules then
  fields[#fields + 1], fields[#fields + 2] = 'rules', rules
  redis.call('HSET', PLACEMENTS, name, seq .. ' ' .. rules)
else
  redis.call('HDEL', PLACEMENTS, name)
end
redis.call('XADD', LOG, seq .. '-0', unpack(fields))
redis.call('ZADD', GARBAGE, seq, seq)
return finish(false)
"""
)

PLACED = _GUARD + "return answer(redis.call('HGETALL', PLACEMENTS))"

# ARGV: through, how many at most. `truncated` is set first, so that no reader in between misses a gap.
COMPACT = (
    _GUARD
    + """
local seqs = redis.call('ZRANGEBYSCORE', GARBAGE, '-inf', ARGV[4], 'LIMIT', 0, tonumber(ARGV[5]))
if #seqs > 0 then
  local truncated = tonumber(redis.call('HGET', META, 'truncated'))
  redis.call('HSET', META, 'truncated', text(math.max(truncated, tonumber(seqs[#seqs]))))
  redis.call('XDEL', LOG, unpack(seqs))
  redis.call('ZREM', GARBAGE, unpack(seqs))
end
return answer(#seqs)
"""
)

# ARGV: the number to continue after, how many at most.
CHANGES = (
    _GUARD
    + """
local truncated = redis.call('HGET', META, 'truncated')
if tonumber(ARGV[4]) < tonumber(truncated) then return {'truncated', truncated} end
return answer(redis.call('XRANGE', LOG, text(tonumber(ARGV[4]) + 1), '+', 'COUNT', ARGV[5]))
"""
)

# As CHANGES, but only seq, item id and the number of the item's record before it.
REPLACED = (
    _GUARD
    + """
local truncated = redis.call('HGET', META, 'truncated')
if tonumber(ARGV[4]) < tonumber(truncated) then return {'truncated', truncated} end
local found = {}
for i, entry in ipairs(redis.call('XRANGE', LOG, text(tonumber(ARGV[4]) + 1), '+', 'COUNT', ARGV[5])) do
  found[i] = {entry[1], field(entry[2], 'item_id') or '', field(entry[2], 'before') or '0'}
end
return answer(found)
"""
)

# ARGV: after, through, how many at most. Item ids and their numbers in turn.
PAGE = (
    _GUARD
    + """
return answer(redis.call('ZRANGEBYSCORE', ITEMS, '(' .. ARGV[4], ARGV[5], 'WITHSCORES', 'LIMIT', 0, ARGV[6]))
"""
)

# ARGV: numbers. The body of each record; false for one that is gone.
BODIES = (
    _GUARD
    + """
local found = {}
for i = 4, #ARGV do
  local entry = record(ARGV[i])
  found[i - 3] = entry and field(entry[2], 'body') or false
end
return answer(found)
"""
)

# ARGV: item ids. Number, item id and body of those that are present.
GET = (
    _GUARD
    + """
local found = {}
for i = 4, #ARGV do
  local seq = redis.call('ZSCORE', ITEMS, ARGV[i])
  if seq then found[#found + 1] = {seq, ARGV[i], field(record(seq)[2], 'body')} end
end
return answer(found)
"""
)

SUPERSEDED = _GUARD + "return answer(redis.call('ZCARD', GARBAGE))"

COUNT = _GUARD + "return answer(redis.call('ZCARD', ITEMS))"

PUBLICATIONS = _GUARD + "return answer(redis.call('LRANGE', PUBLICATIONS, 0, -1))"

# ARGV: how many at most, how many items to consider, how many words a prefix is expanded to; words, the last a prefix.
# Goes through the items of the rarest word. Bounded, so that no search blocks the server.
FIND = (
    _GUARD
    + """
local limit, bound = tonumber(ARGV[4]), tonumber(ARGV[5])
local last = ARGV[#ARGV]
local ends = {}
for _, word in ipairs(redis.call('ZRANGEBYLEX', WORDS, '[' .. last, '[' .. last .. '\\255', 'LIMIT', 0, ARGV[6])) do
  ends[#ends + 1] = WORDS .. ':' .. word
end
local wholes = {}
for i = 7, #ARGV - 1 do wholes[#wholes + 1] = WORDS .. ':' .. ARGV[i] end
local rarest
for _, key in ipairs(wholes) do
  local size = redis.call('SCARD', key)
  if not rarest or size < rarest.size then rarest = {key = key, size = size} end
end
local found, taken, looked = {}, {}, 0
local function has(keys, item_id)
  for _, key in ipairs(keys) do
    if redis.call('SISMEMBER', key, item_id) == 1 then return true end
  end
  return false
end
local function fits(item_id)
  for _, key in ipairs(wholes) do
    if redis.call('SISMEMBER', key, item_id) == 0 then return false end
  end
  return not rarest or has(ends, item_id)
end
for _, key in ipairs(rarest and {rarest.key} or ends) do
  local cursor = '0'
  repeat
    local page = redis.call('SSCAN', key, cursor, 'COUNT', 100)
    cursor = page[1]
    for _, item_id in ipairs(page[2]) do
      looked = looked + 1
      if not taken[item_id] and fits(item_id) then
        taken[item_id] = true
        found[#found + 1] = item_id
      end
    end
  until cursor == '0' or #found >= limit or looked >= bound
  if #found >= limit or looked >= bound then break end
end
return answer(found)
"""
)

# ARGV: catalogue id, schema, epoch, '1' to create a catalogue if there is none.
OPEN = """
local META, LOG, ITEMS, EPOCHS = unpack(KEYS)
if redis.call('EXISTS', META) == 0 then
  if redis.call('EXISTS', LOG, ITEMS) > 0 then return {'damaged'} end
  if ARGV[4] ~= '1' then return {'none'} end
  redis.call('HSET', META, 'catalogue_id', ARGV[1], 'schema', ARGV[2], 'head', '0', 'epoch', ARGV[3], 'run', '',
    'truncated', '0')
end
return {'ok', unpack(redis.call('HMGET', META, 'schema', 'catalogue_id', 'head', 'epoch'))}
"""
