package e2e

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// search looks for an order of the operations on a budget, within the time that each took, that the
// model allows, as porcupine does. But it does not try what changes nothing for others. What is
// allowed at some point and has no effect, a refusal for one, comes at once: if there is an order at all, one goes on
// like that. And a hold is made only when something needs it or may fail for it: the holds that nobody was
// told of, of which any may have been made first within a second, are not tried in all orders.
type search struct {
	ops    []porcupine.Operation // by when they begin
	done   []uint64              // a bit for each
	coming map[int32]int         // how often each hold is still to be made
	eases  []bool                // takes nothing from anybody, wherever it is put
	seen   map[string][]*state   // where the search has been, by what was done
	end    time.Time
	tries  int
	late   bool
}

// ordered says whether there is such an order, unless it does not know in time.
func ordered(history []porcupine.Operation, lasts time.Duration) (legal, decided bool) {
	q := &search{ops: slices.Clone(history), done: make([]uint64, (len(history)+63)/64), coming: map[int32]int{}, seen: map[string][]*state{}, end: time.Now().Add(lasts)}
	slices.SortStableFunc(q.ops, func(a, b porcupine.Operation) int { return int(min(max(a.Call-b.Call, -1), 1)) })
	for i := range q.ops {
		if op := q.op(i); op.kind == opReserve && op.ok {
			q.coming[op.hold]++
		}
	}
	for i := range q.ops {
		q.eases = append(q.eases, q.easing(i))
	}
	legal = q.from(new(state))
	return legal, legal || !q.late
}

func (q *search) op(i int) *input { return q.ops[i].Input.(*input) }

// from goes on from a state to the end, if there is a way.
func (q *search) from(s *state) bool {
	var taken []int // without a choice
	var next []int
	for more := true; more; {
		more = false
		next = q.next()
		if len(next) == 0 {
			return true
		}
		for _, i := range next {
			if q.idle(s, q.op(i)) {
				q.take(i)
				taken, more = append(taken, i), true
			}
		}
	}
	if !q.known(s) {
		for _, i := range next {
			if q.canWait(i, next) {
				continue
			}
			if allowed, after := step(s, q.op(i)); allowed {
				q.take(i)
				if q.from(after) {
					return true
				}
				q.untake(i)
			}
			if q.late {
				break
			}
		}
	}
	for _, i := range taken {
		q.untake(i)
	}
	return false
}

// next are the operations of which one comes next: no other was over before they began.
func (q *search) next() (all []int) {
	over := int64(1<<63 - 1)
	for i := 64 * q.first(); i < len(q.ops) && q.ops[i].Call <= over; i++ {
		if q.done[i/64]&(1<<(i%64)) == 0 {
			all = append(all, i)
			over = min(over, q.ops[i].Return)
		}
	}
	return slices.DeleteFunc(all, func(i int) bool { return q.ops[i].Call > over })
}

// idle reports whether an operation is allowed in a state and changes nothing, neither there nor,
// wherever else it is put, later.
func (q *search) idle(s *state, op *input) bool {
	switch op.kind {
	case opReserve:
		allowed, _ := step(s, op)
		return !op.ok && allowed
	case opRelease, opExpire:
		_, held := slices.BinarySearch(s.holds, op.hold)
		return !held && q.coming[op.hold] == 0
	default:
		return false
	}
}

// easing reports whether after an operation there is room for whatever there was room for before it: all
// but refusals, which need that there is none, and changes of limits.
func (q *search) easing(i int) bool {
	op := q.op(i)
	switch op.kind {
	case opRelease, opExpire:
		return true
	case opReserve:
		return op.ok && op.tokens > 0
	case opSettle: // of a hold that is there, and less than that
		if op.hold < 0 || op.tokens > op.holds.tokens {
			return false
		}
		for n := range op.counts {
			if op.counts[n] > op.holds.counts[n] {
				return false
			}
		}
		for j, other := range q.ops {
			switch of := q.op(j); {
			case j == i || of.hold != op.hold:
			case of.kind == opReserve && other.Return >= q.ops[i].Call, of.kind != opReserve && other.Call <= q.ops[i].Return:
				return false
			}
		}
		return true
	default:
		return false
	}
}

// canWait reports whether an operation makes a hold before that is needed: another one is over earlier, and
// until it is over itself there is nothing but what would leave room for it.
func (q *search) canWait(i int, next []int) bool {
	op, until := q.op(i), q.ops[i].Return
	if op.kind != opReserve || !op.ok || op.tokens == 0 {
		return false
	}
	urgent := true
	for _, j := range next {
		urgent = urgent && until <= q.ops[j].Return
	}
	if urgent {
		return false
	}
	for j := 64 * q.first(); j < len(q.ops) && q.ops[j].Call <= until; j++ {
		if q.done[j/64]&(1<<(j%64)) == 0 && j != i && (!q.eases[j] || q.op(j).hold == op.hold) {
			return false
		}
	}
	return true
}

// first is the word of done with the first operation that is not.
func (q *search) first() (word int) {
	for word < len(q.done) && q.done[word] == ^uint64(0) {
		word++
	}
	return word
}

func (q *search) take(i int) {
	q.done[i/64] |= 1 << (i % 64)
	if op := q.op(i); op.kind == opReserve && op.ok {
		q.coming[op.hold]--
	}
}

func (q *search) untake(i int) {
	q.done[i/64] &^= 1 << (i % 64)
	if op := q.op(i); op.kind == opReserve && op.ok {
		q.coming[op.hold]++
	}
}

// known reports whether the search has been here before, and notes that it has now.
func (q *search) known(s *state) bool {
	if q.tries++; q.tries%256 == 0 && time.Now().After(q.end) {
		q.late = true
	}
	key := make([]byte, 0, 8*len(q.done))
	for _, word := range q.done {
		key = binary.LittleEndian.AppendUint64(key, word)
	}
	for _, other := range q.seen[string(key)] {
		if other.equal(s) {
			return true
		}
	}
	q.seen[string(key)] = append(q.seen[string(key)], s)
	return false
}

// The search says of small histories, legal ones and others, what porcupine says.
func TestTheSearchSaysWhatPorcupineSays(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 1))
	said := map[bool]int{}
	for i := range 4_000 {
		history := drawHistory(random)
		list, twice := inputs(history)
		if twice != "" {
			continue
		}
		want := porcupine.CheckOperations(model, list)
		got, decided := ordered(list, time.Minute)
		if !decided || got != want {
			t.Fatalf("history %d: legal %t, decided %t, and porcupine says %t:\n%s", i, got, decided, want, (&chaos{history: history, limits: true}).describe(history[0].budget()))
		}
		said[want]++
	}
	if said[true] < 500 || said[false] < 500 {
		t.Errorf("%v: of one kind too few to mean anything", said)
	}
}

// drawHistory draws what happens to one budget: a sequence that the model allows, each operation at
// some time around its place, and often one thing in it that was otherwise.
func drawHistory(random *rand.Rand) (history []operation) {
	const port = "port-0" // whose cap is 30
	s := new(state)
	made, numbers := []operation{}, map[string]int32{}
	for n := range 4 + random.IntN(9) {
		op := operation{port: port, kind: opKind(random.IntN(5)), tokens: random.Int64N(16)}
		if op.kind > opReserve && random.IntN(2) == 0 || len(made) == 0 {
			op.kind = opReserve
		}
		in := &input{hold: -1}
		switch op.kind {
		case opReserve:
			op.counts[random.IntN(len(op.counts))] = op.tokens
			in.operation = op
			in.ok = true
			if op.ok, _ = step(s, in); op.ok {
				op.id = fmt.Sprint("hold ", n)
				in.hold, in.holds = int32(n), held{op.tokens, op.counts}
				numbers[op.id] = in.hold
				made = append(made, op)
			}
		case opLimits:
			op.limits, op.tokens = uint8(random.IntN(1<<chaosLimitKinds)), op.tokens%3
		default:
			of := made[random.IntN(len(made))]
			op.id = of.id
			in.hold, in.holds = numbers[of.id], held{of.tokens, of.counts}
			if op.kind != opSettle {
				op.tokens = 0
			}
		}
		in.operation = op
		_, s = step(s, in)
		at := int64(10 * n)
		op.call, op.ret = at-random.Int64N(40), at+random.Int64N(40)
		history = append(history, op)
	}
	if op := &history[random.IntN(len(history))]; random.IntN(2) == 0 {
		switch {
		case op.kind == opReserve && op.ok:
			op.id, op.ok = "", false
		case op.kind == opReserve:
			op.id, op.ok = "another", true
		default:
			op.tokens += random.Int64N(9)
		}
	}
	return history
}
