package ledger

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidegate/tidegate/events"
)

// UserTokens is what a user of a port has spent in some time.
type UserTokens struct {
	PortID string
	User   string
	Tokens int64
}

// TopUsers are the users who spent most.
type TopUsers struct {
	Users []UserTokens // most first
	Ports int          // whose users were looked at
	Exact bool         // no user of another port spent more
}

// TopUsers finds the users who spent most in [start, end), whole UTC days, at most so many. ports
// are those that spent something then, most first. No user spent more than their port: so ports are read
// in that order, ever more at a time, until what is left of them cannot hold another. Where that takes more than
// mostPorts, or longer than atMost, the users are of the ports that were read by then. Calls without a user are nobody's.
func (l *Ledger) TopUsers(ctx context.Context, ports []PortTokens, start, end time.Time, most, mostPorts int, atMost time.Duration) (TopUsers, error) {
	var top TopUsers
	began := time.Now()
	for left, n := ports, 1; len(left) > 0; n *= 2 {
		if len(top.Users) == most && left[0].Tokens <= top.Users[most-1].Tokens {
			break
		}
		if n = min(n, len(left), mostPorts-top.Ports); n == 0 || top.Ports > 0 && time.Since(began) > atMost {
			return top, nil
		}
		users, err := l.usersOf(ctx, left[:n], start, end, most)
		if err != nil {
			return top, wrap(err, "top users")
		}
		top.Users = append(top.Users, users...)
		slices.SortStableFunc(top.Users, func(a, b UserTokens) int {
			return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), strings.Compare(a.PortID, b.PortID), strings.Compare(a.User, b.User))
		})
		top.Users = top.Users[:min(len(top.Users), most)]
		top.Ports, left = top.Ports+n, left[n:]
	}
	top.Exact = true
	return top, nil
}

// usersOf are the users of each of some ports who spent most, at most so many of each.
func (l *Ledger) usersOf(ctx context.Context, ports []PortTokens, start, end time.Time, most int) (users []UserTokens, err error) {
	ids := make([]string, len(ports))
	for i := range ports {
		ids[i] = ports[i].PortID
	}
	rows, _ := l.reportPool.Query(ctx, `select port_id, bool_or(requests >= $4) from ai_usage_port_days
		where port_id = any($1) and day >= ($2::timestamptz at time zone 'UTC')::date and day < ($3::timestamptz at time zone 'UTC')::date group by 1`, ids, start, end, l.keptCalls)
	var id string
	var busy bool // on some day, which is kept
	var small, kept []string
	_, err = pgx.ForEachRow(rows, []any{&id, &busy}, func() error {
		if busy {
			kept = append(kept, id)
		} else {
			small = append(small, id)
		}
		return nil
	})
	for _, id := range kept {
		if err != nil {
			break
		}
		var page SharePage // of one more than asked for: one of them may be nobody
		page, err = l.Shares(ctx, events.ReportRequest{PortID: id, By: events.ByUser, Limit: most + 1}, start, end)
		for _, s := range page.Shares {
			if s.Key != "" {
				users = append(users, UserTokens{id, s.Key, s.TotalTokens})
			}
		}
	}
	if err != nil || len(small) == 0 {
		return users, err
	}
	rows, _ = l.reportPool.Query(ctx, `select port_id, user_id, tokens from (
			select port_id, user_id, least(sum(total_tokens), 9223372036854775807)::bigint as tokens, row_number() over (partition by port_id order by sum(total_tokens) desc, user_id) as rank
			from ai_usage_ledger where port_id = any($1) and created_at >= $2 and created_at < $3 and user_id is not null group by 1, 2) u
		where rank <= $4`, small, start, end, most)
	var u UserTokens
	_, err = pgx.ForEachRow(rows, []any{&u.PortID, &u.User, &u.Tokens}, func() error {
		users = append(users, u)
		return nil
	})
	return users, err
}
