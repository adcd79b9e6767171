package admin

import (
	"cmp"
	"context"
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

// standing is how a port stands, and what people look it up by.
type standing struct {
	ledger.Standing
	shown string
}

func (a *api) readStandings(ctx context.Context, now time.Time) ([]standing, bool, error) {
	list, err := a.standingsOf(ctx, nil, now)
	return list, len(list) > manyPorts, err
}

func (a *api) standingsOf(ctx context.Context, ids []string, now time.Time) ([]standing, error) {
	list, err := a.cfg.Ledger.Standings(ctx, ids, now)
	all := make([]standing, len(list))
	for i, s := range list {
		all[i] = standing{s, strings.ToLower(cmp.Or(s.Name, s.PortID))}
	}
	return all, err
}

// standings are those of the caller's ports, and the time that they are of.
func (a *api) standings(c *call) ([]standing, time.Time, error) {
	if c.caller.Ports == nil {
		return a.standing.get(c.Context(), c.now)
	}
	list, err := a.standingsOf(c.Context(), c.caller.Ports, c.now)
	return list, c.now, err
}

// sortedPage is portsPage in an order, or for a state, that only how ports stand gives.
func (a *api) sortedPage(c *call, limit int) (ids []string, next string, total int64, err error) {
	all, _, err := a.standings(c)
	if err != nil {
		return nil, "", 0, err
	}
	q, state, order := strings.ToLower(c.query["q"]), c.query["state"], byOrder[c.query["sort"]]
	var after *standing
	if text := c.query["after"]; text != "" {
		if after, err = order.parse(text); err != nil {
			return nil, "", 0, err
		}
	}
	var first []*standing // one more than there is room for
	for i := range all {
		s := &all[i]
		if state != "" && string(s.State) != state || !strings.Contains(strings.ToLower(s.PortID), q) && !strings.Contains(s.shown, q) {
			continue
		}
		total++
		if after != nil && order.compare(s, after) <= 0 || len(first) > limit && order.compare(s, first[limit]) > 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(first, s, order.compare)
		first = slices.Insert(first, at, s)
		first = first[:min(len(first), limit+1)]
	}
	if len(first) > limit {
		first = first[:limit]
		next = order.key(first[limit-1]) + ":" + first[limit-1].PortID
	}
	for _, s := range first {
		ids = append(ids, s.PortID)
	}
	return ids, next, total, nil
}

// order is one of ports, which the key and the id of one stand for.
type order struct {
	key  func(*standing) string
	set  func(s *standing, key string) error
	less func(a, b *standing) int
}

func (o order) compare(a, b *standing) int {
	return cmp.Or(o.less(a, b), strings.Compare(a.PortID, b.PortID))
}

// parse reads the next of the page before.
func (o order) parse(after string) (*standing, error) {
	s := &standing{}
	at := strings.LastIndex(after, ":")
	if at < 0 || o.set(s, after[:at]) != nil {
		return nil, invalid("after", quoted(after), "must be the next of the page before, in the same order")
	}
	s.PortID = after[at+1:]
	return s, nil
}

var byOrder = map[string]order{
	sortID: {
		key:  func(*standing) string { return "" },
		set:  func(*standing, string) error { return nil },
		less: func(_, _ *standing) int { return 0 },
	},
	sortName: {
		key:  func(s *standing) string { return s.shown },
		set:  func(s *standing, key string) error { s.shown = key; return nil },
		less: func(a, b *standing) int { return strings.Compare(a.shown, b.shown) },
	},
	sortUsed: {
		key: func(s *standing) string { return number(s.UsedTokens) },
		set: func(s *standing, key string) (err error) {
			s.UsedTokens, err = strconv.ParseInt(key, 10, 64)
			return err
		},
		less: func(a, b *standing) int { return cmp.Compare(b.UsedTokens, a.UsedTokens) },
	},
	sortShare: {
		key: func(s *standing) string { return strconv.FormatFloat(shareOf(s), 'g', -1, 64) },
		set: func(s *standing, key string) error {
			share, err := strconv.ParseFloat(key, 64)
			s.Share = &share
			return err
		},
		less: func(a, b *standing) int { return cmp.Compare(shareOf(b), shareOf(a)) },
	},
	sortLastCall: {
		key: func(s *standing) string { return s.LastDay.Format(time.DateOnly) },
		set: func(s *standing, key string) (err error) {
			s.LastDay, err = time.Parse(time.DateOnly, key)
			return err
		},
		less: func(a, b *standing) int { return b.LastDay.Compare(a.LastDay) },
	},
}

// shareOf is -1 where there is no hard cap: after a cap of which nothing is used.
func shareOf(s *standing) float64 {
	if s.Share == nil {
		return -1
	}
	return *s.Share
}
