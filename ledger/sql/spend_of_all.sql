-- What ports used together: by day since $2, by feature and day since $1, and by model since $1,
-- all of it before the day $3. In each row the kind, the key, the day (null of a model) and the tokens.
select 'day', '', day, least(sum(total_tokens), 9223372036854775807)::bigint
from ai_usage_port_days where day >= $2::date and day < $3::date and %[1]s group by day
union all
select case grouping(model) when 1 then 'feature' else 'model' end, coalesce(feature, model), day, least(sum(total_tokens), 9223372036854775807)::bigint
from ai_usage_totals where day >= $1::date and day < $3::date and %[1]s group by grouping sets ((feature, day), (model))
