package hold

import (
	"slices"

	"github.com/tidegate/tidegate/budget"
)

// severalServices stands for the services that holds of one lease were made for.
const severalServices = "(several)"

// Open is a lease of which holds are made. Tokens of a hold that ends do not come back to
// it: the store ends the hold, and they are the port's again.
type Open struct {
	Lease
	Made   Returned              // what it has been made into so far
	places map[budget.Labels]int // in Made.Calls
	each   []eachValue
}

// eachValue is a dimension of which the lease is for any value, and what was made for each so far.
type eachValue struct {
	dim budget.Per
	budget.Allowance
	made map[string]budget.Sum
}

// Open returns the lease with no holds made of it.
func (l Lease) Open() Open {
	o := Open{Lease: l, Made: Returned{PortID: l.PortID, ID: l.ID, Feature: l.Calls.Feature}}
	if l.Calls.Calls != nil {
		made := &budget.Leased{By: slices.Clone(l.Calls.By), Calls: []budget.Labels{}, Made: []budget.Sum{}}
		for d, a := range l.Calls.Each {
			made.By, o.each = append(made.By, d), append(o.each, eachValue{d, a, map[string]budget.Sum{}})
		}
		o.Made.Calls, o.places = made, map[budget.Labels]int{}
	}
	return o
}

// Left is how many tokens are left of it.
func (o *Open) Left() int64 { return o.Tokens - o.Made.Tokens }

// Hold makes a hold for a call of a service, if the lease is for it and has that much left. A hold
// of nothing is not made: by its tokens nobody could tell that it has ended.
func (o *Open) Hold(service string, call *budget.Call) (id string, ok bool) {
	if call.Tokens == 0 || o.Left() < call.Tokens || o.Made.Holds == o.Holds || !o.allows(call) {
		return "", false
	}
	id = o.HoldID(o.Made.Holds, o.count(call), call.Estimate)
	if o.Made.Holds == 0 {
		o.Made.Service = service
	} else if o.Made.Service != service {
		o.Made.Service = severalServices
	}
	o.Made.Holds, o.Made.Tokens = o.Made.Holds+1, o.Made.Tokens+call.Tokens
	return id, true
}

// allows reports whether the lease is for a call, and has something left for whose it is.
func (o *Open) allows(call *budget.Call) bool {
	c := o.Calls
	if c.Calls == nil {
		return true
	}
	if call.Only(c.By) != c.Calls[0] {
		return false
	}
	for i := range o.each {
		e := &o.each[i]
		v := call.Of(e.dim)
		if made := e.made[v]; made.Calls >= e.Calls || call.Tokens > e.Tokens-made.Tokens || e.Excepts(v) {
			return false
		}
	}
	return true
}

// count adds a hold to what was made for whose call it is, and returns the place of that; -1 where
// the lease does not say whose its calls are.
func (o *Open) count(call *budget.Call) (place int) {
	if o.Made.Calls == nil {
		return -1
	}
	one, made := budget.Sum{Estimate: call.Estimate, Calls: 1}, o.Made.Calls
	for i := range o.each {
		e := &o.each[i]
		v := call.Of(e.dim)
		e.made[v] = e.made[v].Add(one)
	}
	of := call.Only(made.By)
	place, ok := o.places[of]
	if !ok {
		place = len(o.places)
		o.places[of] = place
		made.Calls, made.Made = append(made.Calls, of), append(made.Made, budget.Sum{})
	}
	made.Made[place] = made.Made[place].Add(one)
	return place
}
