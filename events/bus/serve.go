package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"chandler/events"
)

const (
	// requestTime bounds the work on one request, and the wait for its answer.
	requestTime = 30 * time.Second
	// requestsAtOnce and requestsWaiting bound each endpoint by itself, so that a storm of agents on one verb
	// does not keep an administrator from another. What comes beyond is lost; its caller asks again.
	requestsAtOnce  = 32
	requestsWaiting = 16384
	// maxRequest and maxAnswer are sizes in bytes of JSON; an answer above answerPart goes in parts, to
	// administrators.
	maxRequest = 1 << 20
	maxAnswer  = 64 << 20
	answerPart = 512 << 10
	// graceTime is for the requests under way when a service ends.
	graceTime = 5 * time.Second

	// Answers go to inboxes: of the service's own account, and as the broker names those of others.
	inboxPrefix, importedInboxPrefix = "_INBOX.", "_R_."

	resultOK = "ok"

	// headerParts is the number of messages that an answer takes, headerPart counts them from 1.
	headerParts = "Chandler-Parts"
	headerPart  = "Chandler-Part"
)

// Endpoint answers one kind of request. It is made by [Answer].
type Endpoint struct {
	call   events.CallDeclaration
	secret bool // the request holds a secret, and the audit digests it only without
	answer func(ctx context.Context, q *asked, body []byte) (any, error)
}

// Answer makes the endpoint of a call. caller is pinned by the broker: an agent's id or a person's name. The
// context carries the request's trace ([Trace]) and the caller's key ([CallerKey]), and takes what is changed
// ([NoteChange]). The function fails a request by [BadRequest] and its kin; any other error is an internal
// one. It runs for many requests at once.
func Answer[Req, Resp any](c events.Call[Req, Resp], h func(ctx context.Context, caller string, req Req) (Resp, error)) Endpoint {
	_, secret := any(*new(Req)).(events.SecretHolder)
	return Endpoint{call: c.CallDeclaration, secret: secret, answer: func(ctx context.Context, q *asked, body []byte) (any, error) {
		var req Req
		if len(body) > 0 {
			if err := json.Unmarshal(body, &req); err != nil {
				return nil, BadRequest(fmt.Errorf("read request %s.%s: %w", c.Service, c.Verb, err))
			}
		}
		if c.By.Person() {
			q.read(req)
		}
		return h(ctx, q.caller, req)
	}}
}

// Serve answers requests as a NATS micro service of the given name and version (x.y.z), together with all
// other processes of that name: each request goes to one of them. It answers only requests whose reply
// subject is an inbox, and that a client made, not the broker. It blocks until ctx is done, takes no further
// requests, waits a little for those under way, and returns nil; an error means that it could not start.
//
// What people ask is audited: every call that changes something, and every one that is denied, is stored as
// [events.AuditRecorded] before it is answered, by its outcome; a panic and a handler that ran out of time
// are failures like others. If EVENTS does not take the record within 3 s the answer goes out all the same:
// the record is logged whole, counted, and tried again while this process lives.
func (b *Bus) Serve(ctx context.Context, name, version string, endpoints ...Endpoint) error {
	service, err := micro.AddService(b.conn, micro.Config{Name: name, Version: version, Description: "chandler " + name, QueueGroup: name,
		ErrorHandler: func(_ micro.Service, e *micro.NATSError) {
			b.log.ErrorContext(ctx, "service lost requests", "service", name, "subject", e.Subject, "error", e.Description)
		}})
	if err != nil {
		return fmt.Errorf("add service %s: %w", name, err)
	}
	log := b.log.With("service", name)
	s := &server{bus: b, log: log, audit: &auditor{bus: b, log: log, late: make(chan *nats.Msg, auditQueue)}}
	for _, e := range endpoints {
		slots := make(chan struct{}, requestsAtOnce)
		handler := micro.HandlerFunc(func(r micro.Request) { s.take(ctx, e, slots, r) })
		err := service.AddEndpoint(e.call.Verb, handler, micro.WithEndpointSubject(e.call.Filter()), micro.WithEndpointPendingLimits(requestsWaiting, 64*maxRequest),
			micro.WithEndpointMetadata(map[string]string{"by": string(e.call.By), "summary": e.call.Summary}))
		if err != nil {
			return errors.Join(fmt.Errorf("add endpoint %s.%s: %w", name, e.call.Verb, err), service.Stop())
		}
	}
	auditing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var auditor sync.WaitGroup
	auditor.Go(func() { s.audit.run(auditing, name) })
	<-ctx.Done()
	if err := service.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		b.log.WarnContext(ctx, "service could not be stopped in order", "service", name, "error", err)
	}
	settleConn(b.conn)
	s.finish(graceTime)
	stop()
	auditor.Wait()
	return nil
}

// server counts the requests under way.
type server struct {
	bus     *Bus
	log     *slog.Logger
	audit   *auditor
	mu      sync.Mutex
	closing bool
	active  sync.WaitGroup
}

// enter is false once the service ends.
func (s *server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.active.Add(1)
	return true
}

func (s *server) finish(patience time.Duration) {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() { s.active.Wait(); close(idle) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		s.log.Warn("requests were still under way at the end")
	}
}

// take runs in the endpoint's subscription: it waits there for a free slot, which is the queue's bound.
func (s *server) take(ctx context.Context, e Endpoint, slots chan struct{}, r micro.Request) {
	if refusal := fromClient(r); refusal != nil {
		s.bus.refuse(ctx, r.Subject(), refusal)
		return
	}
	slots <- struct{}{}
	if !s.enter() {
		<-slots
		stopping := Unavailable(errors.New("this replica of " + e.call.Service + " is stopping: ask again"))
		s.send(r, failureMessage(asRequestError(stopping)))
		return
	}
	go func() {
		defer s.active.Done()
		defer func() { <-slots }()
		// A request under way is finished also when the service is told to end.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
		defer cancel()
		ctx = WithTrace(ctx, r.Headers().Get(traceExtension))
		started := time.Now()
		q := newAsked(e.call, r.Subject())
		resp, err := s.answer(context.WithValue(ctx, askedKey{}, q), e, q, r.Data())
		answer, failure := s.compose(e, resp, err)
		s.audit.record(ctx, e, q, r.Data(), failure)
		if failure == nil {
			if err := s.keep(ctx, e.call); err != nil {
				answer, failure = s.compose(e, nil, err)
			}
		}
		s.send(r, answer...)
		code := resultOK
		if failure != nil {
			code = failure.Code
		}
		s.bus.metrics.requestSeconds.WithLabelValues(e.call.Service, e.call.Verb, code).Observe(time.Since(started).Seconds())
	}()
}

// keep makes a change outlive a power cut before somebody is told that it was made.
func (s *server) keep(ctx context.Context, c events.CallDeclaration) error {
	if s.bus.durable == nil || !c.Changes() && c.By != events.ByEnrolling {
		return nil
	}
	if err := s.bus.durable(ctx); err != nil {
		s.log.ErrorContext(ctx, "a change cannot be written to the disk", "verb", c.Verb, "error", err)
		return Unavailable(fmt.Errorf("the change was made, but the broker's disk does not confirm it: %w", err))
	}
	return nil
}

// fromClient refuses what the broker may have sent in a client's stead: a stored message that somebody
// has it send on, and whatever else is not to be answered to an inbox.
func fromClient(r micro.Request) *Refusal {
	if !strings.HasPrefix(r.Reply(), inboxPrefix) && !strings.HasPrefix(r.Reply(), importedInboxPrefix) {
		return refuse("reply", "reply subject %q is not an inbox", r.Reply())
	}
	return relayed(nats.Header(r.Headers()))
}

func (s *server) answer(ctx context.Context, e Endpoint, q *asked, body []byte) (resp any, err error) {
	if err := validCaller(e.call.By, q.key, q.caller); err != nil {
		return nil, Denied(err)
	}
	if len(body) > maxRequest {
		return nil, BadRequest(fmt.Errorf("request of %d bytes is larger than %d", len(body), maxRequest))
	}
	err = guard(s.log, func() error {
		resp, err = e.answer(ctx, q, body)
		return err
	})
	return resp, err
}

// newAsked reads who asks from the last tokens of the subject; agents have no key there.
func newAsked(c events.CallDeclaration, subject string) *asked {
	tokens := strings.Split(subject, ".")
	q := &asked{caller: tokens[len(tokens)-1]}
	if c.By.Person() {
		q.key = tokens[len(tokens)-2]
	}
	return q
}

func validCaller(by events.Caller, key, caller string) error {
	if !by.Person() {
		return events.ValidAgent(caller)
	}
	return errors.Join(events.ValidKey(key), events.ValidToken(caller))
}

// compose makes the messages of the answer, or of the failure.
func (s *server) compose(e Endpoint, resp any, err error) ([]*nats.Msg, *RequestError) {
	var body []byte
	if err == nil {
		body, err = marshalAnswer(resp, e.call.By)
	}
	if err != nil {
		failure := asRequestError(err)
		if failure.Code == CodeInternal {
			s.log.Error("request failed", "verb", e.call.Verb, "error", err)
			if !e.call.By.Person() {
				failure = &RequestError{Code: CodeInternal, Message: "internal error: the log of " + e.call.Service + " says more"}
			}
		}
		return []*nats.Msg{failureMessage(failure)}, failure
	}
	answer := make([]*nats.Msg, max(1, (len(body)+answerPart-1)/answerPart))
	for i := range answer {
		answer[i] = &nats.Msg{Data: body[i*answerPart : min(len(body), (i+1)*answerPart)]}
		if len(answer) > 1 {
			answer[i].Header = nats.Header{headerParts: {strconv.Itoa(len(answer))}, headerPart: {strconv.Itoa(i + 1)}}
		}
	}
	return answer, nil
}

func marshalAnswer(resp any, by events.Caller) ([]byte, error) {
	body, err := json.Marshal(resp)
	if err != nil {
		return nil, fmt.Errorf("write answer: %w", err)
	}
	limit := maxAnswer
	if !by.Person() {
		limit = answerPart // agents' inboxes take one message for each request
	}
	if len(body) > limit {
		return nil, fmt.Errorf("answer of %d bytes is larger than %d: ask for less", len(body), limit)
	}
	return body, nil
}

func failureMessage(e *RequestError) *nats.Msg {
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte("{}") // two strings can always be written
	}
	return &nats.Msg{Data: body, Header: nats.Header{micro.ErrorHeader: {escape(e.Message[:min(len(e.Message), maxErrorText)])}, micro.ErrorCodeHeader: {e.Code}}}
}

// send goes around the micro request's own methods, which are not made for answers from another goroutine.
func (s *server) send(r micro.Request, answer ...*nats.Msg) {
	for _, m := range answer {
		m.Subject = r.Reply()
		if err := s.bus.conn.PublishMsg(m); err != nil {
			s.log.Warn("answer could not be sent", "subject", r.Subject(), "error", err)
		}
	}
}
