package admin

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidegate/tidegate/ledger"
)

// The orders of ports that the list knows beside that of their ids.
const (
	sortID       = "id"
	sortName     = "name"
	sortUsed     = "used"
	sortShare    = "share"
	sortLastCall = "last_call"
)

var sorts = []string{sortID, sortName, sortUsed, sortShare, sortLastCall}

func (a *api) readStandings(ctx context.Context, now time.Time) ([]ledger.Standing, bool, error) {
	list, err := a.cfg.Ledger.Standings(ctx, nil, now)
	return list, len(list) > manyPorts, err
}

// standings are those of the caller's ports, and the time that they are of.
func (a *api) standings(c *call) ([]ledger.Standing, time.Time, error) {
	if c.caller.Ports == nil {
		return a.standing.get(c.Context(), c.now)
	}
	list, err := a.cfg.Ledger.Standings(c.Context(), c.caller.Ports, c.now)
	return list, c.now, err
}

// sortedPage is a page of the ports that the query asks for, in an order that only how
// they stand gives: the ids, the next page's after, and how many there are in all.
func (a *api) sortedPage(c *call, limit int) (ids []string, next string, total int, err error) {
	all, _, err := a.standings(c)
	if err != nil {
		return nil, "", 0, err
	}
	q, state, order := strings.ToLower(c.query["q"]), c.query["state"], byOrder[c.query["sort"]]
	var after *ledger.Standing
	if text := c.query["after"]; text != "" {
		if after, err = order.parse(text); err != nil {
			return nil, "", 0, err
		}
	}
	var found []*ledger.Standing
	for i := range all {
		s := &all[i]
		if state != "" && string(s.State) != state || !strings.Contains(strings.ToLower(s.PortID), q) && !strings.Contains(strings.ToLower(s.Name), q) {
			continue
		}
		total++
		if after == nil || order.compare(s, after) > 0 {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, order.compare)
	if len(found) > limit {
		found = found[:limit]
		next = order.key(found[limit-1]) + ":" + found[limit-1].PortID
	}
	for _, s := range found {
		ids = append(ids, s.PortID)
	}
	return ids, next, total, nil
}

// order is one of ports, which the key and the id of one stand for.
type order struct {
	key  func(*ledger.Standing) string
	set  func(s *ledger.Standing, key string) error
	less func(a, b *ledger.Standing) int
}

func (o order) compare(a, b *ledger.Standing) int {
	return cmp.Or(o.less(a, b), strings.Compare(a.PortID, b.PortID))
}

// parse reads the next of the page before.
func (o order) parse(after string) (*ledger.Standing, error) {
	s := &ledger.Standing{}
	at := strings.LastIndex(after, ":")
	if at < 0 || o.set(s, after[:at]) != nil {
		return nil, invalid("after", quoted(after), "must be the next of the page before, in the same order")
	}
	s.PortID = after[at+1:]
	return s, nil
}

var byOrder = map[string]order{
	sortID: {
		key:  func(*ledger.Standing) string { return "" },
		set:  func(*ledger.Standing, string) error { return nil },
		less: func(_, _ *ledger.Standing) int { return 0 },
	},
	sortName: {
		key:  shownName,
		set:  func(s *ledger.Standing, key string) error { s.Name = key; return nil },
		less: func(a, b *ledger.Standing) int { return strings.Compare(shownName(a), shownName(b)) },
	},
	sortUsed: {
		key: func(s *ledger.Standing) string { return number(s.UsedTokens) },
		set: func(s *ledger.Standing, key string) (err error) {
			s.UsedTokens, err = strconv.ParseInt(key, 10, 64)
			return err
		},
		less: func(a, b *ledger.Standing) int { return cmp.Compare(b.UsedTokens, a.UsedTokens) },
	},
	sortShare: {
		key: func(s *ledger.Standing) string { return strconv.FormatFloat(shareOf(s), 'g', -1, 64) },
		set: func(s *ledger.Standing, key string) error {
			share, err := strconv.ParseFloat(key, 64)
			s.Share = &share
			return err
		},
		less: func(a, b *ledger.Standing) int { return cmp.Compare(shareOf(b), shareOf(a)) },
	},
	sortLastCall: {
		key: func(s *ledger.Standing) string { return s.LastDay.Format(time.DateOnly) },
		set: func(s *ledger.Standing, key string) (err error) {
			s.LastDay, err = time.Parse(time.DateOnly, key)
			return err
		},
		less: func(a, b *ledger.Standing) int { return b.LastDay.Compare(a.LastDay) },
	},
}

// shownName is what people look a port up by.
func shownName(s *ledger.Standing) string { return strings.ToLower(cmp.Or(s.Name, s.PortID)) }

// shareOf is -1 where there is no hard cap: after a cap of which nothing is used.
func shareOf(s *ledger.Standing) float64 {
	if s.Share == nil || math.IsNaN(*s.Share) {
		return -1
	}
	return *s.Share
}
