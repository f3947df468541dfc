package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
)

// rawBroker measures what the broker stores when it has nothing else to do: messages of a job, of the same sizes and with
// the same headers, published asynchronously by one client to a stream of the same configuration as STATUS.
type rawBroker struct {
	conn    *nats.Conn // nil: nothing is measured
	js      jetstream.JetStream
	config  jetstream.StreamConfig
	most    int // messages of one measurement
	samples []*nats.Msg
	sent    int // so far, so that ids differ
}

const (
	rawStream  = "SIMULATE"
	rawSubject = "simulate.raw."
	// rawLeast and rawMost bound the messages of a measurement; a small run is measured by few.
	rawLeast, rawMost = 2_000, 30_000
	// rawWindow is how many messages may wait for the broker's answer.
	rawWindow = 4_096
	// rawSamples bounds the messages that are copied.
	rawSamples = 200
	// rawMessagesOfJob is about how many messages a job leaves.
	rawMessagesOfJob = 6
)

// openRaw connects as a user of the fleet's account who may do anything there, which only somebody can who has the
// account's key: on a broker that runs elsewhere nothing is measured.
func (s *simulation) openRaw(ctx context.Context) (*rawBroker, error) {
	r := &rawBroker{most: min(max(s.size*s.deployments*rawMessagesOfJob, rawLeast), rawMost)}
	if s.secret != "" {
		return r, nil
	}
	options := []nats.Option{nats.Name("simulate raw"), nats.MaxReconnects(-1)}
	trusted, err := trustCertificate(s.client.CA)
	if err != nil {
		return nil, err
	}
	if trusted != nil {
		options = append(options, nats.Secure(trusted))
	}
	if !s.noIdentities {
		user, err := s.fleetUser()
		if err != nil {
			return nil, err
		}
		options = append(options, user)
	}
	if r.conn, err = nats.Connect(s.client.Server, options...); err != nil {
		return nil, fmt.Errorf("connect to measure the raw broker: %w", err)
	}
	if r.js, err = jetstream.New(r.conn, jetstream.WithPublishAsyncMaxPending(rawWindow), jetstream.WithPublishAsyncTimeout(simulatedAnswer)); err != nil {
		return nil, errors.Join(err, r.close())
	}
	stream, err := r.js.Stream(ctx, events.StreamStatus)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at stream %s: %w", events.StreamStatus, err), r.close())
	}
	r.config = stream.CachedInfo().Config
	r.config.Name, r.config.Subjects = rawStream, []string{rawSubject + "*.*"}
	if t := r.config.SubjectTransform; t != nil {
		r.config.SubjectTransform = &jetstream.SubjectTransformConfig{Source: rawSubject + "*.*", Destination: strings.Replace(t.Destination, events.Prefix+"job.", rawSubject, 1)}
	}
	return r, nil
}

// fleetUser is signed by the account's own key.
func (s *simulation) fleetUser() (nats.Option, error) {
	at := place{s.told.Data}
	account, err := readSeed(filepath.Join(at.administrator(), "accounts", string(access.Fleet)+".nk"))
	if err != nil {
		return nil, err
	}
	defer account.Wipe()
	seed, public, err := newUserKey()
	if err != nil {
		return nil, err
	}
	claims := jwt.NewUserClaims(public)
	claims.Name, claims.Expires = "simulate", s.now().Add(simulatedLife).Unix()
	token, err := claims.Encode(account)
	return nats.UserJWTAndSeed(token, string(seed)), err
}

func (r *rawBroker) close() error {
	if r.conn != nil {
		r.conn.Close()
	}
	return nil
}

// prime publishes examples once, so that what the broker grows by is not taken for the agents' memory later.
func (r *rawBroker) prime(ctx context.Context) error {
	example, _ := events.JobAccepted.Example.(events.JobStatus)
	m, err := bus.Message(events.JobAccepted, events.Event[events.JobStatus]{ID: example.StatusID(), Source: events.AgentSource(example.Agent), Subject: example.Agent, Data: example})
	if err != nil {
		return err
	}
	r.samples = []*nats.Msg{m}
	_, err = r.measure(ctx)
	r.samples = nil
	return err
}

// sample copies what a few jobs left, each message once.
func (r *rawBroker) sample(ctx context.Context, c *client, since time.Time) error {
	for _, of := range []struct{ stream, filter string }{
		{events.StreamJobs, events.JobOffered.Filter()}, {events.StreamStatus, "chandler.job.>"}, {events.StreamLogs, events.JobLogged.Filter()},
		{events.StreamEvents, events.JobFinished.Filter()}, {events.StreamHistory, events.HistorySubject("*")},
	} {
		err := c.read(ctx, reading{stream: of.stream, filters: []string{of.filter}, since: since}, func(m jetstream.Msg) error {
			if len(r.samples) < rawSamples {
				r.samples = append(r.samples, sampleOf(m))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(r.samples) == 0 {
		return errors.New("the first jobs left no messages")
	}
	return nil
}

// sampleOf is a message as it was published: the broker's own headers are left out.
func sampleOf(m jetstream.Msg) *nats.Msg {
	header := maps.Clone(m.Headers())
	maps.DeleteFunc(header, func(name string, _ []string) bool {
		return strings.HasPrefix(name, "Nats-") && name != jetstream.MsgIDHeader
	})
	return &nats.Msg{Subject: m.Subject(), Header: header, Data: m.Data()}
}

// measure gives the broker's rate in messages a second; 0 where nothing is measured.
func (r *rawBroker) measure(ctx context.Context) (rate float64, err error) {
	if r.conn == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, simulatedAnswer)
	defer cancel()
	if _, err := r.js.CreateStream(ctx, r.config); err != nil {
		return 0, fmt.Errorf("make stream %s to measure the raw broker: %w", rawStream, err)
	}
	defer func() { err = errors.Join(err, r.js.DeleteStream(ctx, rawStream)) }()
	messages := make([]*nats.Msg, r.most)
	for i := range messages {
		r.sent++
		messages[i] = r.copyOf(r.samples[i%len(r.samples)], r.sent)
	}
	begun := time.Now()
	acks := make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		if acks[i], err = r.js.PublishMsgAsync(m, jetstream.WithStallWait(simulatedAnswer)); err != nil {
			return 0, fmt.Errorf("measure the raw broker: %w", err)
		}
	}
	select {
	case <-r.js.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, fmt.Errorf("measure the raw broker: %w", ctx.Err())
	}
	took := time.Since(begun)
	for _, ack := range acks {
		select {
		case err := <-ack.Err():
			return 0, fmt.Errorf("measure the raw broker: %w", err)
		default:
		}
	}
	return float64(len(messages)) / took.Seconds(), nil
}

// copyOf is a sample under another id of the same length, about another agent.
func (r *rawBroker) copyOf(sample *nats.Msg, number int) *nats.Msg {
	header := maps.Clone(sample.Header)
	id := header.Get(jetstream.MsgIDHeader)
	other := fmt.Sprintf("%0*d", max(len(id), 1), number)
	if id != "" {
		header[jetstream.MsgIDHeader] = []string{other}
	}
	if header.Get("ce-id") != "" {
		header["ce-id"] = []string{other}
	}
	return &nats.Msg{Subject: fmt.Sprintf("%saccepted.a%019d", rawSubject, number%(rawMost/rawMessagesOfJob)), Header: header, Data: sample.Data}
}
