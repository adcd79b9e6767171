package consumer

import "testing"

// A batch ends by its messages, or by their bytes: events are counted only once they are
// decoded, and as many bytes hold as many of them, in few large messages as in many small ones.
func TestRoomOfABatch(t *testing.T) {
	c := &Consumer{cfg: Config{BatchSize: 25_000}}
	for _, b := range []struct {
		name        string
		n, bytes    int
		least, most int
	}{
		{"an event a message, at first", 1, 400, pullSize, pullSize},
		{"an event a message, near the end", 24_000, 24_000 * 400, 1_000, 1_000},
		{"full messages, at first", 1, 16_000, 600, 700},
		{"full messages, near the end", 600, 600 * 16_000, 1, 60},
		{"empty messages", 10, 0, pullSize, pullSize},
		{"as many messages as may be", 25_000, 25_000, 0, 0},
		{"as many bytes as may be", 700, 700 * 16_000, 0, 0},
	} {
		if room := c.room(&intake{n: b.n, bytes: b.bytes}); room < b.least || room > b.most {
			t.Errorf("%s: room for %d messages, want %d to %d", b.name, room, b.least, b.most)
		}
	}
}
