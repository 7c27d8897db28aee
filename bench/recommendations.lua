-- What wrk sends: recommendations for strangers, each with 20 to 60 ratings of their own.
local movies = {
  1, 2, 6, 10, 16, 17, 21, 25, 32, 34, 36, 39, 47, 50, 95, 110, 111, 141, 150, 153, 161, 165, 185, 208, 223, 231,
  253, 260, 288, 292, 293, 296, 300, 316, 318, 329, 337, 339, 344, 349, 350, 353, 356, 357, 364, 367, 368, 377,
  380, 434, 454, 457, 474, 480, 500, 508, 509, 515, 520, 527, 539, 541, 551, 552, 553, 586, 587, 588, 589, 590,
  592, 593, 595, 597, 608, 648, 708, 733, 736, 750, 778, 780, 786, 788, 832, 858, 904, 908, 912, 923, 1036, 1073,
}
math.randomseed(7)
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
  local seen, ratings = {}, {}
  for _ = 1, math.random(20, 60) do
    local movie = movies[math.random(#movies)]
    if not seen[movie] then
      seen[movie] = true
      ratings[#ratings + 1] = string.format('{"movie_id":%d,"rating":%.1f}', movie, math.random(2, 10) / 2)
    end
  end
  return wrk.format(nil, "/v1/recommendations", nil, '{"k":10,"ratings":[' .. table.concat(ratings, ",") .. "]}")
end

function done(summary, latency, _)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.stderr:write(string.format(
    '{"requests":%d,"seconds":%f,"failed":%d,"p50_ms":%f,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, bad, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
