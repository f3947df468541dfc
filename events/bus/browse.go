package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// BrowseOptions say what to read of a stream.
type BrowseOptions struct {
	Stream string
	// Filters are stored subjects, wildcards allowed; none: all.
	Filters []string
	Since   time.Time // what was stored at that time or later; zero: from the first
	OnlyNew bool      // instead: only what is stored from now on
	Follow  bool      // go on with what is stored later, until ctx is done
	// Patience is how long the broker may be silent before it is given up; 0: as long as ctx lasts, but for the
	// first answer, after 10 s: a stream that is not there, or not for this role, is silent too.
	Patience time.Duration
}

const (
	// browsePasses is the number of filters that the broker applies, each in a pass of its own. More are read
	// as one pass of all that they might match, and sorted out here.
	browsePasses = 8
	// Pauses of a reader who awaits what is stored next. What wakes him is published before it is stored, so
	// that he always waits for the least one.
	browseLeast, browseMost = 20 * time.Millisecond, 500 * time.Millisecond
	// browseCheck is how long nothing may come before it is checked that the stream still is what it was: one
	// that was made anew gives nothing either.
	browseCheck = 30 * time.Second
)

// Browse gives the messages of a stream that match any of the filters to each, in the order of the stream,
// each once, as they were stored. It leaves nothing at the broker and asks only for direct gets, which every
// role of people may; it holds no more than a few MiB. Without Follow it ends with the last
// message that the stream held at the beginning, and an error, also ctx's, says that the reading is not whole;
// with Follow it returns nil when ctx is done. It goes on after the broker was away. An error of each ends it
// and is returned as it is; [ErrWentBack] says that the stream was lost or restored meanwhile.
//
// In a cluster a replica may answer that lags behind: a reading that does not follow may then lack the newest
// messages, as if they had been stored a moment later, and several filters may follow slightly out of order.
func (b *Bus) Browse(ctx context.Context, o BrowseOptions, each func(jetstream.Msg) error) error {
	w, err := b.newBrowser(o, each)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", o.Stream, err)
	}
	defer w.close()
	var silent time.Time // since when the broker has not answered
	for failures := uint64(1); ; failures++ {
		err := w.run(ctx)
		switch own, ended := errors.AsType[failed](err); {
		case ended:
			return own.error
		case err == nil || ctx.Err() != nil && o.Follow:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if w.heard {
			failures, silent, w.heard = 1, w.asked, false
		}
		patience := o.Patience
		if patience == 0 && !w.opened {
			patience = apiTimeout
		}
		if b.conn.IsClosed() || patience > 0 && time.Since(silent) >= patience {
			return fmt.Errorf("read stream %s: %w", o.Stream, err)
		}
		b.log.WarnContext(ctx, "reading a stream is interrupted and will go on", "stream", o.Stream, "error", err)
		wait(ctx, reconnectPause(failures))
	}
}

// browser reads one stream by batches of direct gets. Each filter is read by a cursor of its own, and the
// cursors are merged by sequence.
type browser struct {
	BrowseOptions
	bus     *Bus
	each    func(jetstream.Msg) error
	cursors []*cursor
	covered bool // the one cursor reads more than the filters match

	opened   bool
	last     uint64    // of the stream at the beginning
	stored   uint64    // highest sequence that is known to be stored
	storedAt time.Time // when that was
	asked    time.Time // when the broker was last asked
	heard    bool      // it has answered since the last interruption
	// connects is the number of reconnections when the stream was last checked.
	connects uint64

	inbox    string // answers to get n come to inbox.n
	gets     int
	answers  *nats.Subscription
	wakers   []*nats.Subscription
	wake     chan struct{}
	maxBytes int // of one batch
}

func (b *Bus) newBrowser(o BrowseOptions, each func(jetstream.Msg) error) (*browser, error) {
	w := &browser{BrowseOptions: o, bus: b, each: each, asked: time.Now(), heard: true, inbox: b.conn.NewInbox(), wake: make(chan struct{}, 1)}
	w.Filters = slices.Compact(slices.Sorted(slices.Values(o.Filters)))
	for _, f := range w.Filters {
		if slices.Contains(strings.Split(f, "."), "") || strings.ContainsAny(f, " \t\r\n") {
			return nil, fmt.Errorf("filter %q is no subject", f)
		}
	}
	passes := w.Filters
	switch {
	case len(passes) == 0:
		passes = []string{">"}
	case len(passes) > browsePasses:
		passes, w.covered = []string{cover(passes)}, true
	}
	for _, f := range passes {
		w.cursors = append(w.cursors, &cursor{filter: f, stale: true})
	}
	w.maxBytes = browseBytes / len(w.cursors)
	var err error
	if w.answers, err = b.conn.SubscribeSync(w.inbox + ".*"); err != nil {
		return nil, err
	}
	if !o.Follow {
		return w, nil
	}
	for _, subject := range published(o.Stream, w.Filters) {
		// A broker that does not allow it says so to the connection; the pauses alone will do then.
		sub, err := b.conn.Subscribe(subject, func(*nats.Msg) {
			select {
			case w.wake <- struct{}{}:
			default:
			}
		})
		if err != nil {
			w.close()
			return nil, err
		}
		w.wakers = append(w.wakers, sub)
	}
	return w, nil
}

func (w *browser) close() {
	_ = w.answers.Unsubscribe() // fails only if the connection is closed, as below
	for _, s := range w.wakers {
		_ = s.Unsubscribe()
	}
}

// run reads to the end; any error but a [failed] one may pass by itself.
func (w *browser) run(ctx context.Context) error {
	if err := w.open(ctx); err != nil {
		return err
	}
	pause, checked := browseLeast, time.Now()
	for {
		more, err := w.advance(ctx)
		switch {
		case err != nil:
			return err
		case more:
			pause, checked = browseLeast, time.Now()
			continue
		case !w.Follow:
			return nil
		}
		if w.sleep(ctx, pause) {
			pause = browseLeast
		}
		pause = min(2*pause, browseMost)
		for _, c := range w.cursors {
			c.stale = true
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Since(checked) > browseCheck || w.connects != w.bus.conn.Stats().Reconnects:
			if err := w.open(ctx); err != nil {
				return err
			}
			checked = time.Now()
		}
	}
}

// sleep waits for the pause; woken says that something was published meanwhile.
func (w *browser) sleep(ctx context.Context, pause time.Duration) (woken bool) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.wake:
		wait(ctx, browseLeast)
		return true
	}
	return false
}

// asking bounds one question to the broker.
func (w *browser) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	w.asked = time.Now()
	ctx, cancel := w.bus.asking(ctx)
	if w.Patience == 0 {
		return ctx, cancel
	}
	ctx, stop := context.WithTimeout(ctx, w.Patience)
	return ctx, func() { stop(); cancel() }
}

// open learns where the stream ends, and whether it still is the one that is read.
func (w *browser) open(ctx context.Context) error {
	ctx, cancel := w.asking(ctx)
	defer cancel()
	w.connects = w.bus.conn.Stats().Reconnects
	last, at, err := w.newest(ctx)
	if err != nil {
		return err
	}
	w.heard = true
	if last < w.stored && at.After(w.storedAt) { // or what was read is gone by now
		return failed{fmt.Errorf("read stream %s behind %d: %w: its newest message is %d", w.Stream, w.stored, ErrWentBack, last)}
	}
	w.note(last, at)
	for _, c := range w.cursors {
		if !w.opened && w.OnlyNew {
			c.next = last + 1
		}
		c.stale = true
	}
	if !w.opened {
		w.opened, w.last = true, last
	}
	return nil
}

// note remembers the newest message that is known.
func (w *browser) note(sequence uint64, at time.Time) {
	if sequence > w.stored {
		w.stored, w.storedAt = sequence, at
	}
}

// advance hands the next message on; more is false if there is none now, or none that is wanted.
func (w *browser) advance(ctx context.Context) (more bool, err error) {
	lowest := w.lowest()
	for {
		need := w.stored
		if lowest != nil {
			need = lowest.held[0].meta.Sequence.Stream
		}
		i := slices.IndexFunc(w.cursors, func(c *cursor) bool { return c.behind(need) })
		if i < 0 {
			break
		}
		if err := w.get(ctx, w.cursors[i]); err != nil {
			return false, err
		}
		lowest = w.lowest()
	}
	if lowest == nil {
		return false, nil
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	d := lowest.held[0]
	sequence := d.meta.Sequence.Stream
	if !w.Follow && sequence > w.last {
		return false, nil
	}
	for _, c := range w.cursors { // filters may overlap
		if len(c.held) > 0 && c.held[0].meta.Sequence.Stream == sequence {
			c.held = c.held[1:]
		}
	}
	if w.covered && !subjectIn(d.Subject(), w.Filters) {
		return true, nil
	}
	if err := w.each(d); err != nil {
		return false, failed{err}
	}
	return true, nil
}

// lowest is the cursor that holds the lowest message, nil if none holds any.
func (w *browser) lowest() *cursor {
	var lowest *cursor
	for _, c := range w.cursors {
		if len(c.held) > 0 && (lowest == nil || c.held[0].meta.Sequence.Stream < lowest.held[0].meta.Sequence.Stream) {
			lowest = c
		}
	}
	return lowest
}

// cover is the narrowest pattern with single wildcards that matches all that any of the filters matches.
func cover(filters []string) string {
	tokens := strings.Split(filters[0], ".")
	for _, f := range filters[1:] {
		other := strings.Split(f, ".")
		for i := range tokens {
			if i == len(other) { // which ends one before, with a token of its own
				tokens = append(tokens[:i-1], ">")
				break
			}
			if tokens[i] == ">" || other[i] == ">" {
				tokens = append(tokens[:i], ">")
				break
			}
			if tokens[i] != other[i] {
				tokens[i] = "*"
			}
		}
		if last := len(tokens) - 1; len(other) > len(tokens) {
			tokens[last] = ">"
		}
	}
	return strings.Join(tokens, ".")
}

// published are the subjects on which what the filters match is published before the stream stores it: none
// but parts of declared types' subjects, because those are what role viewer may listen to.
func published(stream string, filters []string) []string {
	if len(filters) == 0 {
		filters = []string{">"}
	}
	var subjects []string
	for _, d := range events.Types() {
		if d.Stream != stream {
			continue
		}
		stored, subject := strings.Split(d.Filter(), "."), strings.Split(d.Subject("*"), ".")
		for _, f := range filters {
			if both, ok := intersect(stored, strings.Split(f, ".")); ok {
				subjects = append(subjects, strings.Join(both[:len(subject)], ".")) // STATUS appends the partition
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(subjects)))
}

// intersect is the pattern that matches what both do. Only the second may end in ">".
func intersect(a, b []string) (both []string, ok bool) {
	for i, token := range a {
		switch {
		case i < len(b) && b[i] == ">":
			return append(both, a[i:]...), true
		case i >= len(b) || b[i] != token && b[i] != "*" && token != "*":
			return nil, false
		case token == "*":
			token = b[i]
		}
		both = append(both, token)
	}
	return both, len(a) == len(b)
}
