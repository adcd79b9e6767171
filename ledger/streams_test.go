package ledger_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/tidegate/tidegate/ledger"
)

func (s *store) wantBooked(t testing.TB, stream uuid.UUID, want uint64) {
	t.Helper()
	if got, err := s.Booked(t.Context(), stream); err != nil || got != want {
		t.Errorf("the stream is booked through %d, %v, want %d", got, err, want)
	}
}

// What a stream held that is gone, and was not booked, is known until it is put back.
func TestWhatAStreamHeldThatIsGone(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	gone, other := uuid.New(), uuid.New()
	track := func(stream uuid.UUID) *ledger.GoneStream {
		t.Helper()
		replaced, err := s.TrackStream(t.Context(), stream, 0)
		if err != nil {
			t.Fatal(err)
		}
		return replaced
	}
	want := func(what string, messages int64) {
		t.Helper()
		if got, err := s.Unbooked(t.Context()); err != nil || got != messages {
			t.Errorf("%s: %d messages were not booked, %v, want %d", what, got, err, messages)
		}
	}
	if replaced := track(gone); replaced != nil {
		t.Errorf("the first stream replaces %+v", replaced)
	}
	if _, err := s.BookShare(t.Context(), ledger.Share{Stream: gone, Batch: uuid.New(), Of: 1, Sequences: []ledger.Sequences{{First: 1, Last: 3}}}, []ledger.Entry{call("p1", noon)}); err != nil {
		t.Fatal(err)
	}
	if err := s.FoldBooked(t.Context(), gone, ledger.Mark{Sequence: 9, StoredAt: noon}); err != nil {
		t.Fatal(err)
	}
	want("while the stream is there", 0)
	if replaced := track(other); replaced == nil || replaced.Unbooked != 6 {
		t.Errorf("the other stream replaces %+v, want one with 6 messages that were not booked", replaced)
	}
	want("once it is gone", 6)
	if replaced := track(other); replaced != nil {
		t.Errorf("seen again, it replaces %+v", replaced)
	}
	want("later", 6)
	track(gone)
	want("once it is put back", 0)
}

// A stream is booked up to the first sequence that no committed booking covers.
func TestBookedThrough(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	stream, other := uuid.New(), uuid.New()
	s.wantBooked(t, stream, 0) // unknown
	for _, id := range []uuid.UUID{stream, other, stream} {
		if replaced, err := s.TrackStream(t.Context(), id, 500); err != nil || (replaced != nil) != (id == other) {
			t.Fatalf("replaces %v, %v", replaced, err)
		}
	}
	s.wantBooked(t, stream, 0) // a new ledger has to prove what is acknowledged
	book := func(batch uuid.UUID, number, of int, sequences []ledger.Sequences, entries ...ledger.Entry) {
		t.Helper()
		share := ledger.Share{Stream: stream, Batch: batch, Number: number, Of: of, Sequences: sequences}
		for range 2 { // the second time, as after a commit of which nobody heard
			if _, err := s.BookShare(t.Context(), share, entries); err != nil {
				t.Fatal(err)
			}
		}
	}
	fold := func() {
		t.Helper()
		if err := s.FoldBooked(t.Context(), stream, ledger.Mark{Sequence: 9, StoredAt: noon}); err != nil {
			t.Fatal(err)
		}
	}
	split := uuid.New()
	book(uuid.New(), 0, 1, []ledger.Sequences{{First: 1, Last: 3}}, call("p1", noon))
	s.wantBooked(t, stream, 3)
	book(split, 0, 2, []ledger.Sequences{{First: 4, Last: 5}}, call("p1", noon))
	s.wantBooked(t, stream, 3) // the other writer's events may be of the same messages
	fold()
	s.wantBooked(t, stream, 3)
	book(split, 1, 2, nil, call("p2", noon))
	s.wantBooked(t, stream, 5)
	book(uuid.New(), 0, 1, []ledger.Sequences{{First: 7, Last: 7}, {First: 9, Last: 12}}) // all of them refused
	s.wantBooked(t, stream, 5)
	fold()
	s.wantBooked(t, stream, 5)
	book(uuid.New(), 0, 1, []ledger.Sequences{{First: 8, Last: 8}, {First: 6, Last: 6}})
	s.wantBooked(t, stream, 12)
	s.wantBooked(t, other, 0)
	fold()
	if left := one[int](t, s.db, "select count(*)::int from ai_booked_shares"); left != 0 {
		t.Errorf("%d shares are left after all was folded", left)
	}
	if marks, err := s.Marks(t.Context(), stream, 10); err != nil || len(marks) != 1 || marks[0].Sequence != 9 || !marks[0].StoredAt.Equal(noon) {
		t.Errorf("marks %+v, %v", marks, err)
	}
	if err := s.Unbook(t.Context(), stream, 7); err != nil {
		t.Fatal(err)
	}
	s.wantBooked(t, stream, 6)
	if marks, err := s.Marks(t.Context(), stream, 10); err != nil || len(marks) != 0 {
		t.Errorf("marks %+v, %v, want none of what is not booked", marks, err)
	}
	if err := s.Unbook(t.Context(), stream, 0); err != nil {
		t.Fatal(err)
	}
	s.wantBooked(t, stream, 0)
	book(uuid.New(), 0, 1, []ledger.Sequences{{First: 1, Last: 2}})
	s.wantBooked(t, stream, 2)
	s.wantVerified(t)
}

// A booking that fails notes nothing; one with bad rows notes all once they are set apart.
func TestAShareIsNotedWithItsBooking(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	stream := uuid.New()
	if _, err := s.TrackStream(t.Context(), stream, 0); err != nil {
		t.Fatal(err)
	}
	share := ledger.Share{Stream: stream, Batch: uuid.New(), Of: 1, Sequences: []ledger.Sequences{{First: 1, Last: 4}}}
	bad := call("p1", noon)
	bad.Usage.Model = "NUL \x00"
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.BookShare(cancelled, share, []ledger.Entry{call("p1", noon)}); err == nil {
		t.Error("booked after its end")
	}
	s.wantBooked(t, stream, 0)
	// One that fails after it began, too: it waits for totals that somebody has locked.
	if err := s.inTx(t, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "lock table ai_usage_totals"); err != nil {
			return err
		}
		hasty, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := s.BookShare(hasty, share, []ledger.Entry{call("p1", noon)}); err == nil {
			t.Error("booked although the totals were locked")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.wantBooked(t, stream, 0)
	b, err := s.BookShare(t.Context(), share, []ledger.Entry{call("p1", noon), bad, call("p2", noon)})
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, b, "booked", "unbookable", "booked")
	if s.wantBooked(t, stream, 0); b.Noted {
		t.Error("noted with an entry that is nowhere yet")
	}
	if b, err = s.BookShare(t.Context(), share, nil); err != nil || !b.Noted {
		t.Errorf("noted: %t, %v", b.Noted, err)
	}
	s.wantBooked(t, stream, 4)
	// So it is with one that the ledger refuses without Postgres' help.
	share.Batch, share.Sequences = uuid.New(), []ledger.Sequences{{First: 5, Last: 6}}
	once := call("p1", noon)
	again := once
	again.Usage.Feature = "other"
	if b, err = s.BookShare(t.Context(), share, []ledger.Entry{once, again}); err != nil || b.Noted {
		t.Errorf("noted: %t, %v", b.Noted, err)
	}
	wantFates(t, b, "booked", "id_conflict")
	s.wantBooked(t, stream, 4)
}

// A ledger that is older than its tracking of streams takes its first stream as booked.
func TestTheFirstStreamOfAnOlderLedger(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.db.Exec(t.Context(), "update ai_ledger set predates_streams = true"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint64{500, 0, 0} {
		stream := uuid.New()
		if _, err := s.TrackStream(t.Context(), stream, 500); err != nil {
			t.Fatal(err)
		}
		if s.wantBooked(t, stream, want); t.Failed() {
			t.Fatalf("stream %d", i)
		}
	}
}

// Batches of several writers and readers, folded and taken back at any moment, leave what
// a set of numbers would.
func TestBookedModel(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	rapid.Check(t, func(rt *rapid.T) {
		stream := uuid.New()
		if _, err := s.TrackStream(t.Context(), stream, 0); err != nil {
			rt.Fatal(err)
		}
		covered := map[uint64]bool{0: true}
		type open struct {
			share ledger.Share
			seqs  []uint64
		}
		var waiting []open
		noted := map[uuid.UUID]int{}
		note := func(o open) {
			if _, err := s.BookShare(t.Context(), o.share, nil); err != nil {
				rt.Fatal(err)
			}
			if noted[o.share.Batch]++; noted[o.share.Batch] == o.share.Of {
				for _, q := range o.seqs {
					covered[q] = true
				}
			}
		}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				if err := s.FoldBooked(t.Context(), stream, ledger.Mark{}); err != nil {
					rt.Fatal(err)
				}
			case 1:
				if len(waiting) > 0 { // the batch's other share
					note(waiting[0])
					waiting = waiting[1:]
				}
			case 2:
				from := uint64(rapid.IntRange(0, 20).Draw(rt, "from"))
				if err := s.Unbook(t.Context(), stream, from); err != nil {
					rt.Fatal(err)
				}
				for q := range covered {
					if q >= max(from, 1) {
						delete(covered, q)
					}
				}
				// What is half noted is from before, and counts once its other half comes.
			default:
				seqs := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 20), 0, 8, rapid.ID).Draw(rt, "sequences")
				slices.Sort(seqs)
				var ranges []ledger.Sequences
				for _, q := range seqs {
					ranges = append(ranges, ledger.Sequences{First: q, Last: q})
				}
				of := rapid.IntRange(1, 2).Draw(rt, "shares")
				batch := uuid.New()
				note(open{ledger.Share{Stream: stream, Batch: batch, Number: 0, Of: of, Sequences: ranges}, seqs})
				if of == 2 {
					waiting = append(waiting, open{ledger.Share{Stream: stream, Batch: batch, Number: 1, Of: of}, seqs})
				}
			}
			want := uint64(0)
			for covered[want+1] {
				want++
			}
			if got, err := s.Booked(t.Context(), stream); err != nil || got != want {
				rt.Fatalf("booked through %d, %v, want %d", got, err, want)
			}
		}
	})
}
