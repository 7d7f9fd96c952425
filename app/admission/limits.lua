-- One decision on token buckets and sets of running requests, atomic in Redis; the clock is Redis' own.
--
-- KEYS: the buckets (hashes: l level, t milliseconds), the sets of running requests (member: request, score: end of its
--       lease), and the request's own record (what it took of each bucket).
-- ARGV: act, request, lease in ms, number of buckets, then capacity, fill per ms and cost of each bucket, then the size of
--       each set. The cost is what to take (act "take") or what was used (act "give"); "renew" reads neither.
-- Answer: allowed (1 or 0), milliseconds to wait, the place of the limit that is reached, and every level.
local act, request, lease, buckets = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local record = KEYS[#KEYS]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if act == 'renew' then
  if redis.call('PEXPIRE', record, lease) == 1 then
    for place = buckets + 1, #KEYS - 1 do
      redis.call('ZADD', KEYS[place], 'XX', now + lease, request)
      redis.call('PEXPIRE', KEYS[place], lease + 1000)
    end
  end
  return {1, 0, 0}
end

local level, capacity, fill, cost = {}, {}, {}, {}

local function write(place)
  redis.call('HSET', KEYS[place], 'l', string.format('%.6f', level[place]), 't', string.format('%d', now))
  redis.call('PEXPIRE', KEYS[place], math.ceil((capacity[place] - level[place]) / fill[place]) + 1000)
end

for place = 1, buckets do
  capacity[place] = tonumber(ARGV[2 + 3 * place])
  fill[place] = tonumber(ARGV[3 + 3 * place])
  cost[place] = tonumber(ARGV[4 + 3 * place])
  local held = redis.call('HMGET', KEYS[place], 'l', 't')
  local since = math.min(tonumber(held[2]) or now, now)
  level[place] = math.min(capacity[place], (tonumber(held[1]) or capacity[place]) + (now - since) * fill[place])
  if (tonumber(held[2]) or now) > now then write(place) end -- the clock was set back: the bucket fills from here on
end

local function answer(allowed, wait, reached)
  local found = {allowed, wait, reached}
  for place = 1, buckets do found[3 + place] = string.format('%.6f', level[place]) end
  for place = buckets + 1, #KEYS - 1 do
    found[3 + place] = tostring(tonumber(ARGV[4 + 2 * buckets + place]) - redis.call('ZCARD', KEYS[place]))
  end
  return found
end

if act == 'give' then
  local taken, place = redis.call('GET', record), 0
  for part in string.gmatch(taken or '', '[^,]+') do
    place = place + 1
    level[place] = math.min(capacity[place], level[place] + tonumber(part) - cost[place])
    write(place)
  end
  redis.call('DEL', record)
  for place = buckets + 1, #KEYS - 1 do redis.call('ZREM', KEYS[place], request) end
  return answer(1, 0, 0)
end

local wait, reached = 0, 0
for place = 1, buckets do
  local missing = cost[place] - level[place]
  if missing > 0 then
    local needed = math.ceil(missing / fill[place])
    if needed > wait then wait, reached = needed, place end
  end
end
for place = buckets + 1, #KEYS - 1 do
  redis.call('ZREMRANGEBYSCORE', KEYS[place], '-inf', now)
  if redis.call('ZCARD', KEYS[place]) >= tonumber(ARGV[4 + 2 * buckets + place]) and wait < 1000 then
    wait, reached = 1000, place
  end
end
if reached > 0 then return answer(0, wait, reached) end

for place = 1, buckets do
  level[place] = level[place] - cost[place]
  write(place)
end
for place = buckets + 1, #KEYS - 1 do
  redis.call('ZADD', KEYS[place], now + lease, request)
  redis.call('PEXPIRE', KEYS[place], lease + 1000)
end
redis.call('SET', record, table.concat(cost, ','), 'PX', lease)
return answer(1, 0, 0)
