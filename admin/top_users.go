package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/ledger"
)

// Users are in the ledger only, port by port. What looking for those of all ports may take at a time,
// and from when on it is done by the side.
const (
	usersOfPorts = 25
	usersAtMost  = time.Second
	usersQuick   = 100 * time.Millisecond
)

// topUsers are those of the caller's ports, which all are.
func (a *api) topUsers(c *call, all []standing) (ledger.TopUsers, error) {
	if c.caller.Ports != nil {
		return a.topUsersOf(c.Context(), all, c.now)
	}
	users, _, err := a.users.getBy(c.Context(), c.now, func(ctx context.Context, now time.Time) (ledger.TopUsers, bool, error) {
		began := time.Now()
		users, err := a.topUsersOf(ctx, all, now)
		return users, len(all) > manyPorts || time.Since(began) > usersQuick, err
	})
	return users, err
}

// topUsersOf are those of ports that used most this month.
func (a *api) topUsersOf(ctx context.Context, all []standing, now time.Time) (ledger.TopUsers, error) {
	var ports []ledger.PortTokens
	for i := range all {
		if n := all[i].MonthTokens; n > 0 {
			ports = append(ports, ledger.PortTokens{PortID: all[i].PortID, Tokens: n})
		}
	}
	slices.SortFunc(ports, func(a, b ledger.PortTokens) int {
		return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), cmp.Compare(a.PortID, b.PortID))
	})
	month, next := budget.Month.Bounds(now)
	return a.cfg.Ledger.TopUsers(ctx, ports, month, next, topOfAll, usersOfPorts, usersAtMost)
}

func (r *overviewReply) topUsers(top ledger.TopUsers) {
	r.TopUsers = []topUser{}
	for _, u := range top.Users {
		r.TopUsers = append(r.TopUsers, topUser{PortID: u.PortID, User: u.User, TotalTokens: u.Tokens})
	}
	if !top.Exact {
		r.UsersOf = new(int64(top.Ports))
	}
}

// nameAll adds the names of ports to what tells of single ports.
func (a *api) nameAll(c *call, r *overviewReply) error {
	ids := []string{r.Unsettled.PortID}
	for i := range r.TopUsers {
		ids = append(ids, r.TopUsers[i].PortID)
	}
	for i := range r.Alerts {
		ids = append(ids, r.Alerts[i].PortID)
	}
	for i := range r.Refusals {
		ids = append(ids, r.Refusals[i].PortID)
	}
	names, err := a.cfg.Ledger.PortNames(c.Context(), ids)
	if err != nil {
		return err
	}
	r.Unsettled.Name = names[r.Unsettled.PortID]
	for i := range r.TopUsers {
		r.TopUsers[i].Name = names[r.TopUsers[i].PortID]
	}
	for i := range r.Alerts {
		r.Alerts[i].Name = names[r.Alerts[i].PortID]
	}
	for i := range r.Refusals {
		r.Refusals[i].Name = names[r.Refusals[i].PortID]
	}
	return nil
}
