package budget

import (
	"slices"
	"sync"
)

// Leased says whose calls are made from a lease. A [Limit] that looks at nothing else counts
// the lease for them alone. It is never changed once made, and safe for concurrent use.
type Leased struct {
	Feature string            // of all of them
	By      []Per             // the dimensions, beside the feature, that are known of them
	Calls   []Labels          // of these alone, as far as By goes; nil: of anybody
	Each    map[Per]Allowance // what one value of a dimension that is not in By may have, at most
	Made    []Sum             // what was made for each of Calls; nil: the lease is still open

	mu   sync.Mutex
	sets map[matchPer]values // what in has found
}

// Allowance is what any one value of a dimension may have of a lease.
type Allowance struct {
	Tokens int64    `json:"tokens"`
	Calls  int64    `json:"calls"`
	Except []string `json:"except,omitempty"` // sorted: these have nothing of it
}

// Excepts reports whether a value has nothing of it.
func (a *Allowance) Excepts(value string) bool {
	_, found := slices.BinarySearch(a.Except, value)
	return found
}

// Sum is what some calls are expected to use together: Tokens, of which Input and Output where
// calls said so.
type Sum struct {
	Estimate
	Calls int64
}

// Add returns the sum of both.
func (s Sum) Add(o Sum) Sum {
	return Sum{Estimate{Add(s.Tokens, o.Tokens), Add(s.Input, o.Input), Add(s.Output, o.Output)}, s.Calls + o.Calls}
}

func (s Sum) without(o Sum) Sum {
	return Sum{Estimate{max(s.Tokens-o.Tokens, 0), max(s.Input-o.Input, 0), max(s.Output-o.Output, 0)}, max(s.Calls-o.Calls, 0)}
}

type matchPer struct {
	match Match
	per   Per
}

// values are values of a limit's Per, and the places of the Calls that have them. all: any value.
type values struct {
	all  bool
	some map[string][]int
}

// in are the values of a limit in which calls of the lease may count.
func (s *Leased) in(l *Limit) values {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := matchPer{l.Match, l.Per}
	v, ok := s.sets[key]
	if !ok {
		if s.sets == nil {
			s.sets = map[matchPer]values{}
		}
		v = s.find(l)
		s.sets[key] = v
	}
	return v
}

func (s *Leased) find(l *Limit) values {
	known := append([]Per{PerFeature}, s.By...)
	looked := Limit{Match: Match((*Labels)(&l.Match).Only(known))} // the rest may match
	calls := s.Calls
	if calls == nil {
		calls = []Labels{{}}
	}
	v := values{some: map[string][]int{}}
	for i, c := range calls {
		c.Feature = s.Feature
		if !looked.Matches(&c) {
			continue
		}
		v.some[c.Of(l.Per)] = append(v.some[c.Of(l.Per)], i)
		v.all = v.all || l.Per != "" && !slices.Contains(known, l.Per)
	}
	return v
}

// under is what of the lease is under way, in a limit, of the Calls at some places that count in one value:
// where so much is left of it in all, and so much has ended of what was made for each of Calls.
func (s *Leased) under(l *Limit, places []int, ended []Sum, left int64) int64 {
	if s.Made == nil { // each may yet have all of it
		return left
	}
	var under Sum
	for _, i := range places {
		under = under.Add(s.Made[i])
		if i < len(ended) {
			under = under.without(ended[i])
		}
	}
	return min(l.asksSum(&under), left)
}
