package ops

import (
	"errors"
	"slices"
	"testing"

	"github.com/tidegate/tidegate/events"
)

func TestPages(t *testing.T) {
	for _, c := range []struct{ entries, fits, want int }{{0, 9, 0}, {7, 9, 7}, {8, 9, 8}, {20, 9, 20}, {20, 3, 20}, {20, 1, 20}} {
		var got []int
		err := pages(8, func(limit int) (int, error) {
			page := min(limit, c.entries-len(got))
			if page > c.fits {
				return 0, &events.ServiceError{Code: 413}
			}
			for range page {
				got = append(got, len(got))
			}
			return page, nil
		})
		if err != nil || len(got) != c.want || !slices.IsSorted(got) {
			t.Errorf("%d entries, %d of which fit: %v, %v", c.entries, c.fits, got, err)
		}
	}
	tries := 0
	err := pages(8, func(int) (int, error) { tries++; return 0, &events.ServiceError{Code: 413} })
	var fault *events.ServiceError
	if !errors.As(err, &fault) || fault.Code != 413 || tries != 4 {
		t.Errorf("one entry that does not fit: %v after %d tries", err, tries)
	}
}
