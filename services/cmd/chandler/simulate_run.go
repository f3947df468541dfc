package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"chandler/events"
)

// warmAgents is how many agents the first deployment goes to, which is not measured: it opens what is opened once, and
// shows what messages of a job look like.
const warmAgents = 5

// simulatedPause is between two looks at how far it has got.
const simulatedPause = 250 * time.Millisecond

// warmUp lets a few agents do a job, and takes their messages for samples.
func (s *simulation) warmUp(ctx context.Context, raw *rawBroker) error {
	few := s.present()
	if len(few) == 0 {
		return errors.New("no agent stays: say a smaller --offline or more --agents")
	}
	few = slices.Sorted(slices.Values(few[:min(warmAgents, len(few))]))
	collection := s.name("-warm-up")
	if _, err := ask(ctx, s.client, events.CollectionSet, events.Collection{Name: collection, Include: few}); err != nil {
		return err
	}
	began := s.now()
	send, err := s.propose(ctx, collection, []string{collection}, "")
	if err != nil {
		return err
	}
	if err := send(ctx); err != nil {
		return err
	}
	if err := s.follow(ctx, []string{collection}, len(few)); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return raw.sample(ctx, s.client, began)
}

// deploymentNames are those that are measured.
func (s *simulation) deploymentNames() []string {
	names := make([]string, s.deployments)
	for i := range names {
		names[i] = s.name(fmt.Sprintf("-%d", i+1))
	}
	return names
}

// propose makes the orders of deployments to a collection, whose starts are spread over a time; send signs and sends them.
func (s *simulation) propose(ctx context.Context, collection string, names []string, jitter string) (send func(context.Context) error, err error) {
	signer, err := s.signer(ctx)
	if err != nil {
		return nil, err
	}
	l := newLookups(s.client, signer.trust)
	var all []proposal
	for _, name := range names {
		// always: each deployment runs the same program, on every agent.
		f := createFlags{packageRef: simulatedPackage + "@" + s.run, program: simulatedProgram, to: collection, rerun: "always", valid: "1d", jitter: jitter}
		wanted, err := s.declaredByFlags(nil, name, f)
		if err != nil {
			return nil, err
		}
		p, err := s.proposeNamed(ctx, l, wanted, f)
		if err != nil {
			return nil, err
		}
		p.order.Revision = 1
		all = append(all, p)
	}
	return func(ctx context.Context) error {
		for _, p := range all {
			if _, err := sendOrder(ctx, s.client, signer, p, false); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// measured is the run itself: from the first order to the last message stored.
func (s *simulation) measured(ctx context.Context, raw *rawBroker) error {
	s.names = s.deploymentNames()
	send, err := s.propose(ctx, s.name(""), s.names, s.jitter())
	if err != nil {
		return err
	}
	if err := doAll(ctx, s.processes(), doMeasure); err != nil {
		return err
	}
	if err := s.countStored(ctx, -1); err != nil {
		return err
	}
	s.meters.begin()
	s.result.began, s.warm = s.now(), s.stats()
	running, stop := context.WithTimeout(ctx, s.within)
	defer stop()
	if err := send(running); err != nil {
		return err
	}
	s.step("%s signed and sent, to %s", plural(len(s.names), "deployment", "deployments"), plural(len(s.members), "agent", "agents"))
	if err := s.scenario.play(s, ctx, running, raw); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.meters.end(&s.result, len(s.members), len(s.members)*len(s.names)); err != nil {
		return err
	}
	if err := s.countStored(ctx, 1); err != nil {
		return err
	}
	return doAll(ctx, s.processes(), doMeasured)
}

func (s *simulation) processes() (all []*child) {
	for _, c := range slices.Concat([]*child{s.broker, s.services}, s.leaves, s.agents) {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// followAll follows those who stayed, lets the others return, and follows them. What does not end in time is lost, and no
// error here.
func (s *simulation) followAll(ctx, running context.Context, names []string) error {
	present := len(s.present())
	err := s.follow(running, names, present)
	if err == nil && present < len(s.members) {
		if err := doAll(ctx, s.agents, doReturn); err != nil {
			return err
		}
		s.step("%s return", plural(len(s.members)-present, "agent", "agents"))
		err = s.follow(running, names, len(s.members))
	}
	if err != nil && ctx.Err() == nil && running.Err() != nil {
		s.step("not every job ended within --timeout %s", s.within)
		return nil
	}
	return err
}

// follow shows how far the deployments are, until so many jobs of each have ended. It asks about the first that is not over.
func (s *simulation) follow(ctx context.Context, names []string, each int) error {
	over, shown := 0, s.now()
	var ended int64 // of the first that is not over
	for {
		counts, err := ask(ctx, s.client, events.ExecutionProgress, events.Named{Name: names[over]})
		if err == nil {
			t := newTally(counts)
			ended = t.succeeded + t.failed + t.cancelled
		}
		if ended >= int64(each) {
			over, ended = over+1, 0
		}
		total := int64(over)*int64(each) + ended
		if over == len(names) || s.now().Sub(shown) >= time.Second {
			shown = s.now()
			s.step("%s of %s jobs have ended%s", count(total), count(each*len(names)), s.hindered(each))
		}
		switch {
		case over == len(names):
			return nil
		case ended == 0 && over > 0 && ctx.Err() == nil:
			continue // the next may be over too
		case !pause(ctx, simulatedPause):
			return errors.Join(fmt.Errorf("the deployments did not end: %d jobs did: %w", total, context.Cause(ctx)), err)
		}
	}
}

// hindered says what keeps agents from work, as far as they know: their connection, or execution's answer since.
func (s *simulation) hindered(present int) string {
	now := s.stats()
	if now.Connected >= present && now.Current >= present {
		return ""
	}
	return fmt.Sprintf("; %s agents are connected, %s of them up to date", count(now.Connected), count(now.Current))
}
