-- Sends the requests of a file, one JSON body a line, over and over, and says at the end how that went.
-- The file is named by the environment: wrk hands a script's arguments on, but not to every function.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local requests, sent = {}, 0

function init()
  for body in io.lines(os.getenv("BENCH_REQUESTS")) do
    requests[#requests + 1] = wrk.format(nil, "/v1/recommendations", nil, body)
  end
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency, _)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.stderr:write(string.format(
    '{"requests":%d,"seconds":%f,"failed":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, bad, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
