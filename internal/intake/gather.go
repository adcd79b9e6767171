package intake

import "time"

// Gather hands on what waits in tasks, at most so many at once, a while after the first
// of them came, until tasks is closed.
func Gather[T any](tasks <-chan T, atMost int, while time.Duration, together func([]T)) {
	var batch []T
	for first := range tasks {
		batch = append(batch[:0], first)
		time.Sleep(while)
	gather:
		for len(batch) < atMost {
			select {
			case next, ok := <-tasks:
				if !ok {
					break gather
				}
				batch = append(batch, next)
			default:
				break gather
			}
		}
		together(batch)
	}
}
