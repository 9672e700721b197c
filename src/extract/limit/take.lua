-- Takes requests from every rate they count for, or from none. The same rules as `ledger.rs`, on the server's clock.
--
-- KEYS: the budget (a hash), its pause (a key that expires), then one hash per rate.
-- ARGV: who asks; how many are wanted, 0 to only pass on a pause; 1 if several streams of the member wait; the budget's
--   birth as the member knows it, or ""; a new one; a pause in ms; 1 if all counts as spent; how late a member may be,
--   the wait for a turn, the longest pace and how long rivals are remembered in µs; then per rate: moving or fixed, requests, window in µs, weight.
-- Answers: how many go, the number of the first, µs to wait (for the next, if some go), the budget's birth.
-- Moments are µs since 1970. Grants are kept in slots, each counted as late as it could be.
local SLOTS = 200
local QUEUE_MAX = 64
local BUDGET_LIFE_MS = 30 * 86400 * 1000

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local function text(number) return string.format('%.0f', number) end

local budget, pause = KEYS[1], KEYS[2]
local member, want, contended = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local seen, pause_ms, spend = ARGV[4], tonumber(ARGV[6]), ARGV[7] == '1'
local late_max, turn_wait, pace_max = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local rivals_last = tonumber(ARGV[11])

local known = redis.call('HMGET', budget, 'born', 'granted', 'spent', 'queue')
local born, granted = known[1], tonumber(known[2] or 0)
local spent = math.min(tonumber(known[3] or -1), now)
if not born then
  born = ARGV[5]
  redis.call('HSET', budget, 'born', born)
end
if spend or (seen ~= '' and seen ~= born) then
  spent = now
  redis.call('HSET', budget, 'spent', text(now))
end
redis.call('PEXPIRE', budget, BUDGET_LIFE_MS)
if pause_ms > 0 and redis.call('PTTL', pause) < pause_ms then
  redis.call('SET', pause, '1', 'PX', pause_ms)
end
if want == 0 then return { 0, 0, 0, born } end
local paused = redis.call('PTTL', pause)
if paused > 0 then return { 0, 0, paused * 1000, born } end

-- What counts now.
local rates = {}
for number = 3, #KEYS do
  local at = 12 + (number - 3) * 4
  local rate = {
    key = KEYS[number],
    fixed = ARGV[at] == 'fixed',
    requests = tonumber(ARGV[at + 1]),
    per = tonumber(ARGV[at + 2]),
    weight = tonumber(ARGV[at + 3]),
    taken = 0, slots = {}, scarce = 0, contended = 0, last = 0,
  }
  local margin = math.floor(rate.per / 50)
  rate.guard = math.min(margin, 2000000)
  rate.width = rate.fixed and rate.per or math.max(1, math.floor(rate.per / SLOTS))
  rate.hold = rate.fixed and rate.guard or rate.per + margin
  rate.slot = math.floor(now / rate.width)
  rate.free_at = function(slot) return (slot + 1) * rate.width + rate.hold end
  rate.open_at = function(moment)
    if not rate.fixed then return moment end
    local start = math.floor(moment / rate.per) * rate.per
    if moment - start >= rate.per - rate.guard then return start + rate.per + rate.guard end
    return math.max(moment, start + rate.guard)
  end
  local fields = redis.call('HGETALL', rate.key)
  for index = 1, #fields, 2 do
    local name, value = fields[index], tonumber(fields[index + 1])
    if name == 'scarce' then
      rate.scarce = value
    elseif name == 'contended' then
      rate.contended = math.min(value, now + rivals_last)
    elseif name == 'last' then
      rate.last = math.min(value, now)
    else
      local slot = tonumber(name)
      if slot > rate.slot then
        -- The clock was set back: what was granted counts as granted now.
        redis.call('HDEL', rate.key, name)
        redis.call('HINCRBY', rate.key, text(rate.slot), value)
        slot = rate.slot
      end
      if rate.free_at(slot) <= now then
        redis.call('HDEL', rate.key, name)
      else
        rate.taken = rate.taken + value
        table.insert(rate.slots, { slot, value })
      end
    end
  end
  table.sort(rate.slots, function(one, other) return one[1] < other[1] end)
  table.insert(rates, rate)
end

-- How many there is room for, or when there is for one.
local function look()
  local room, free_at = math.huge, now
  for _, rate in ipairs(rates) do
    if spent >= 0 then
      free_at = math.max(free_at, rate.free_at(math.floor(spent / rate.width)))
    end
    local missing = rate.weight - (rate.requests - rate.taken)
    local moment = now
    for _, slot in ipairs(rate.slots) do
      if missing <= 0 then break end
      missing = missing - slot[2]
      moment = math.max(moment, rate.free_at(slot[1]))
    end
    free_at = math.max(free_at, rate.open_at(moment))
    room = math.min(room, math.floor((rate.requests - rate.taken) / rate.weight))
  end
  return room, free_at
end

-- Who waits, in the order of their turns.
local queue, mine, rivals, before = {}, nil, false, 0
for who, due, what in string.gmatch(known[4] or '', '([^,;]+),([^,;]+),([^;]*);') do
  due = tonumber(due)
  if now <= due + late_max and due <= now + 86400 * 1000000 * 366 then
    local entry = { who, due, what }
    table.insert(queue, entry)
    if who == member then
      mine = entry
    else
      for _, rate in ipairs(rates) do
        if string.find(what, rate.key .. '|', 1, true) then
          rivals = true
          if not mine and due <= now then before = before + 1 end
          break
        end
      end
    end
  end
end
local function keep()
  local words = {}
  for _, entry in ipairs(queue) do
    table.insert(words, entry[1] .. ',' .. text(entry[2]) .. ',' .. entry[3] .. ';')
  end
  redis.call('HSET', budget, 'queue', table.concat(words))
end
local function wait(moment)
  local what = ''
  for _, rate in ipairs(rates) do what = what .. rate.key .. '|' end
  if mine then
    mine[2], mine[3] = moment, what
  elseif #queue < QUEUE_MAX then
    table.insert(queue, { member, moment, what })
  end
  keep()
  return { 0, 0, math.max(1, moment - now), born }
end

local room, free_at = look()
if free_at > now then
  for _, rate in ipairs(rates) do
    redis.call('HSET', rate.key, 'scarce', text(free_at + rate.per + math.floor(rate.per / 50)))
    redis.call('PEXPIRE', rate.key, text(math.ceil(rate.per / 1000) * 4 + 60000))
  end
  return wait(free_at)
end

local paced = nil
for _, rate in ipairs(rates) do
  if contended or rivals then
    rate.contended = now + rivals_last
    redis.call('HSET', rate.key, 'contended', text(rate.contended))
  end
  if rate.scarce > now and rate.contended > now and rate.last > 0 then
    local pace = math.min(pace_max, math.floor(rate.per / rate.requests) * rate.weight)
    paced = math.max(paced or 0, rate.last + pace)
  end
end
if paced and paced > now then return wait(paced) end
if before > 0 and (paced or before >= room) then return wait(now + turn_wait) end
local count = paced and 1 or math.min(want, room - before)

for _, rate in ipairs(rates) do
  redis.call('HINCRBY', rate.key, text(rate.slot), count * rate.weight)
  redis.call('HSET', rate.key, 'last', text(now))
  redis.call('PEXPIRE', rate.key, text(math.ceil(rate.per / 1000) * 4 + 60000))
  rate.taken = rate.taken + count * rate.weight
  table.insert(rate.slots, { rate.slot, count * rate.weight })
end
for index = #queue, 1, -1 do
  if queue[index][1] == member then table.remove(queue, index) end
end
keep()
redis.call('HINCRBY', budget, 'granted', count)
local _, next_at = look()
return { count, granted, math.max(0, next_at - now), born }
