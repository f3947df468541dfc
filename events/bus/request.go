package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"chandler/events"
)

// Request asks a service in the caller's name, which the broker must have granted to this connection, and
// waits for the answer until ctx is done, at most 30 s where ctx has no deadline. A failure that the service
// told, or that there is no service, is a *[RequestError]; others are errors of the connection.
func Request[Req, Resp any](ctx context.Context, b *Bus, caller string, c events.Call[Req, Resp], req Req) (Resp, error) {
	var resp Resp
	fail := func(err error) (Resp, error) {
		var none Resp
		return none, fmt.Errorf("ask %s.%s: %w", c.Service, c.Verb, err)
	}
	if err := validCaller(c.By, b.key, caller); err != nil {
		return fail(BadRequest(err))
	}
	body, err := json.Marshal(req)
	if err != nil {
		return fail(err)
	}
	if len(body) > maxRequest {
		return fail(BadRequest(fmt.Errorf("request of %d bytes is larger than %d", len(body), maxRequest)))
	}
	ctx, cancel := withDefaultTimeout(ctx, requestTime)
	defer cancel()
	m := &nats.Msg{Subject: c.Subject(b.key, caller), Data: body}
	if trace := Trace(ctx); trace != "" {
		m.Header = nats.Header{traceExtension: {trace}}
	}
	var answer []byte
	if !c.By.Person() {
		answer, err = b.askOnce(ctx, m)
	} else {
		answer, err = b.askInParts(ctx, m)
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return fail(Unavailable(fmt.Errorf("no %s service is running: start one with `chandler serve %s`", c.Service, c.Service)))
	}
	if err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(answer, &resp); err != nil {
		return fail(fmt.Errorf("read answer: %w", err))
	}
	return resp, nil
}

// traceKey is the key of a trace in a context.
type traceKey struct{}

// WithTrace gives requests made with the context a W3C traceparent, which whoever answers them finds with
// [Trace]. One of another form is left out: a bad trace stops no work.
func WithTrace(ctx context.Context, trace string) context.Context {
	if !isTrace(trace) {
		return ctx
	}
	return context.WithValue(ctx, traceKey{}, trace)
}

// Trace is the W3C traceparent of the request that is made or answered with the context; "" if it has none.
func Trace(ctx context.Context) string {
	trace, _ := ctx.Value(traceKey{}).(string)
	return trace
}

// askOnce shares one inbox subscription between all requests of the connection: thousands of agents must
// not make the brokers learn and forget an inbox for each request.
func (b *Bus) askOnce(ctx context.Context, m *nats.Msg) ([]byte, error) {
	answer, err := b.conn.RequestMsgWithContext(ctx, m)
	if err != nil {
		return nil, err
	}
	return answer.Data, failureOf(answer)
}

// askInParts takes answers that are too large for one message.
func (b *Bus) askInParts(ctx context.Context, m *nats.Msg) ([]byte, error) {
	m.Reply = b.conn.NewInbox()
	sub, err := b.conn.SubscribeSync(m.Reply)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection is closed
	if err := sub.SetPendingLimits(-1, maxAnswer+answerPart); err != nil {
		return nil, err
	}
	if err := b.conn.PublishMsg(m); err != nil {
		return nil, err
	}
	var whole bytes.Buffer
	for part, parts := 1, 1; part <= parts; part++ {
		answer, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		if err := failureOf(answer); err != nil {
			return nil, err
		}
		if parts, err = partsOf(answer, part); err != nil {
			return nil, err
		}
		whole.Write(answer.Data)
	}
	return whole.Bytes(), nil
}

// partsOf is the number of parts; parts come in order over one connection.
func partsOf(m *nats.Msg, part int) (int, error) {
	if m.Header.Get(headerParts) == "" && part == 1 {
		return 1, nil
	}
	parts, err := strconv.Atoi(m.Header.Get(headerParts))
	if err != nil || parts < 1 || parts > maxAnswer/answerPart || m.Header.Get(headerPart) != strconv.Itoa(part) {
		return 0, fmt.Errorf("part %q of %q came where part %d was awaited", m.Header.Get(headerPart), m.Header.Get(headerParts), part)
	}
	return parts, nil
}

// failureOf is the service's error in an answer, or nil.
func failureOf(m *nats.Msg) error {
	code := m.Header.Get(micro.ErrorCodeHeader)
	if code == "" {
		return nil
	}
	var told RequestError
	if json.Unmarshal(m.Data, &told) != nil || told.Message == "" {
		told.Message, _ = unescape(m.Header.Get(micro.ErrorHeader))
	}
	if told.Code = code; !knownCode(code) {
		told.Code = CodeInternal
	}
	return &told
}
