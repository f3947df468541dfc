package execution

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events/bus"
)

// lag shows how far a partition's reader is behind, as long as the partition is pinned to this replica.
// Whoever has the pin and is behind gets batch after batch. So when none came for as long as a pin lasts,
// the partition is another replica's now, which shows its lag itself, or nothing is left to fold.
type lag struct {
	gauge prometheus.Gauge

	mu    sync.Mutex
	shown uint64 // counts the calls of show
	over  *time.Timer
}

// show takes the number of statuses that wait behind a batch.
func (l *lag) show(pending uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	l.gauge.Set(float64(pending))
	l.shown++
	mine := l.shown
	l.over = time.AfterFunc(bus.PinnedTTL, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.shown == mine {
			l.gauge.Set(0)
		}
	})
}

// end is for a reader that stops.
func (l *lag) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	l.shown++
	l.gauge.Set(0)
}

func (l *lag) stop() {
	if l.over != nil {
		l.over.Stop()
	}
}
