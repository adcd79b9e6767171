package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

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
// in that order until what is left of them cannot hold another. Where that takes more than mostPorts,
// or longer than atMost, the users are of the ports that were read by then. Calls without a user are nobody's.
func (l *Ledger) TopUsers(ctx context.Context, ports []PortTokens, start, end time.Time, most, mostPorts int, atMost time.Duration) (TopUsers, error) {
	var top TopUsers
	began := time.Now()
	for _, p := range ports {
		if len(top.Users) == most && p.Tokens <= top.Users[most-1].Tokens {
			top.Exact = true
			return top, nil
		}
		if top.Ports == mostPorts || top.Ports > 0 && time.Since(began) > atMost {
			return top, nil
		}
		// One more than asked for: one of them may be nobody.
		page, err := l.Shares(ctx, events.ReportRequest{PortID: p.PortID, By: events.ByUser, Limit: most + 1}, start, end)
		if err != nil {
			return top, fmt.Errorf("ledger: top users: %w", err)
		}
		for _, s := range page.Shares {
			if s.Key != "" {
				top.Users = append(top.Users, UserTokens{p.PortID, s.Key, s.TotalTokens})
			}
		}
		slices.SortStableFunc(top.Users, func(a, b UserTokens) int { return cmp.Compare(b.Tokens, a.Tokens) })
		top.Users = top.Users[:min(len(top.Users), most)]
		top.Ports++
	}
	top.Exact = true
	return top, nil
}
