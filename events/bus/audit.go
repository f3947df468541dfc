package bus

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"chandler/events"
)

const (
	// auditTime bounds the wait of an answer for its record.
	auditTime = 3 * time.Second
	// auditQueue is the number of records of one service that wait to be stored late.
	auditQueue = 256
	// Lengths in bytes of what a record takes from a request.
	maxAbout      = 256
	maxAuditName  = 64
	maxAuditError = 1024
)

// asked is one request, as the context of its handler carries it.
type asked struct {
	key, caller string
	about       string
	digest      string // of a request with a secret, made without it

	mu            sync.Mutex
	before, after string
}

type askedKey struct{}

// CallerKey is the public key that the connection of whoever makes the request proved ([events.NoKey] on a
// broker that asks for none), for handlers of requests that people make. It is empty elsewhere.
func CallerKey(ctx context.Context) string {
	if q, ok := ctx.Value(askedKey{}).(*asked); ok {
		return q.key
	}
	return ""
}

// NoteChange tells the audit what the request that is handled with the context has changed: the digests of
// both as JSON go into its record; nil is for what was not, or is not, there. A second note replaces the
// first. Neither may hold a secret: whoever reads the digest could try guesses at it.
func NoteChange(ctx context.Context, before, after any) {
	q, ok := ctx.Value(askedKey{}).(*asked)
	if !ok {
		return
	}
	from, to := digestOf(before), digestOf(after)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.before, q.after = from, to
}

// digestOf is empty for nil, also for one that has a type.
func digestOf(v any) string {
	data, err := json.Marshal(v)
	if err != nil || string(data) == "null" {
		return ""
	}
	return events.DigestOf(data)
}

// read notes what the audit needs of a request that could be read.
func (q *asked) read(request any) {
	if r, ok := request.(events.Abouter); ok {
		q.about = r.About()
	}
	if r, ok := request.(events.SecretHolder); ok {
		q.digest = digestOf(r.WithoutSecret())
	}
}

// auditor stores the records of one service.
type auditor struct {
	bus  *Bus
	log  *slog.Logger
	late chan *nats.Msg
}

// record stores what became of a request, before its caller hears of it. A call that changes nothing is
// recorded only when it is denied: a viewer who asks for what is not there must not fill EVENTS. A record
// that cannot be stored in time is logged whole, and stored later.
func (a *auditor) record(ctx context.Context, e Endpoint, q *asked, body []byte, failure *RequestError) {
	denied := failure != nil && failure.Code == CodeDenied
	if !e.call.By.Person() || !e.call.Changes() && !denied {
		return
	}
	if !e.secret {
		q.digest = events.DigestOf(body)
	}
	m, err := a.message(ctx, auditRecord(e.call, q, failure))
	if err != nil {
		a.lost(e.call.Service, "dropped", m, err)
		return
	}
	if err = a.store(ctx, m); err == nil {
		return
	}
	select {
	case a.late <- m:
		a.lost(e.call.Service, "late", m, err)
	default:
		a.lost(e.call.Service, "dropped", m, err)
	}
}

func auditRecord(call events.CallDeclaration, q *asked, failure *RequestError) events.AuditRecord {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := events.AuditRecord{By: plain(q.caller, maxAuditName), Key: plain(q.key, maxAuditName), Service: call.Service, Verb: call.Verb, About: plain(q.about, maxAbout),
		Request: q.digest, Before: q.before, After: q.after, Result: resultOK, At: time.Now().UTC()}
	if failure != nil {
		r.Result, r.Error = failure.Code, plain(failure.Message, maxAuditError)
	}
	return r
}

// message makes the event of a record. The random part of its id tells two equal requests apart.
func (a *auditor) message(ctx context.Context, r events.AuditRecord) (*nats.Msg, error) {
	return message(a.bus, events.AuditRecorded, events.Event[events.AuditRecord]{
		ID:     events.DeriveID("audit", r.Service, r.Verb, r.Key, r.Request, r.At.Format(time.RFC3339Nano), rand.Text()),
		Source: events.ServiceSource(r.Service), Subject: r.Service, Time: r.At, Trace: Trace(ctx), Data: r})
}

// store waits for the store's answer for a while, also where the request itself has run out of time.
func (a *auditor) store(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	ack, err := a.bus.js.PublishMsg(ctx, m)
	if err != nil {
		a.bus.metrics.published.WithLabelValues(events.AuditRecorded.Name, "error").Inc()
		return err
	}
	a.bus.countStored(events.AuditRecorded.Name, ack)
	return nil
}

// lost counts a record that could not be stored in time; the log is then the only place that has it.
func (a *auditor) lost(service, fate string, m *nats.Msg, err error) {
	record := ""
	if m != nil {
		record = string(m.Data)
	}
	a.bus.metrics.auditLost.WithLabelValues(service, fate).Inc()
	a.log.Error("audit record could not be stored in time", "fate", fate, "record", record, "error", err)
}

// run stores late records in their order until ctx is done, and then tries each that is left once more, for
// as long as one request may take.
func (a *auditor) run(ctx context.Context, service string) {
	for {
		select {
		case <-ctx.Done():
			a.finish(service)
			return
		case m := <-a.late:
			a.insist(ctx, service, m)
		}
	}
}

func (a *auditor) insist(ctx context.Context, service string, m *nats.Msg) {
	for failures := uint64(1); ; failures++ {
		err := a.store(ctx, m)
		if err == nil {
			return
		}
		if !wait(ctx, reconnectPause(failures)) {
			a.lost(service, "dropped", m, err)
			return
		}
	}
}

func (a *auditor) finish(service string) {
	ctx, cancel := context.WithTimeout(context.Background(), auditTime)
	defer cancel()
	for {
		select {
		case m := <-a.late:
			if err := ctx.Err(); err != nil {
				a.lost(service, "dropped", m, err)
			} else if err := a.store(ctx, m); err != nil {
				a.lost(service, "dropped", m, err)
			}
		default:
			return
		}
	}
}

// plain bounds text of strangers and takes out what could steer the terminal of whoever reads it.
func plain(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) <= limit {
		return s
	}
	const cut = "…"
	return strings.ToValidUTF8(s[:limit-len(cut)], "") + cut
}
