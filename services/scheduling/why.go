package scheduling

import (
	"context"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/target"
)

// why tells, of one agent and one or all deployments, what scheduling decided; also where there is no job.
func (s *Service) why(ctx context.Context, _ string, req events.WhyRequest) (events.WhyAnswer, error) {
	a, err := s.knownAgent(req.Agent)
	if err != nil {
		return events.WhyAnswer{}, err
	}
	names := s.deploymentNames()
	if req.Deployment != "" {
		if err := events.ValidToken(req.Deployment); err != nil {
			return events.WhyAnswer{}, bus.BadRequest(fmt.Errorf("deployment: %w", err))
		}
		if _, ok := s.deployment(req.Deployment); !ok {
			return events.WhyAnswer{}, unknownDeployment(req.Deployment)
		}
		names = []string{req.Deployment}
	}
	answer := events.WhyAnswer{Agent: s.agentView(a), Answers: []events.WhyDecision{}}
	for _, name := range names {
		if d, ok := s.deployment(name); ok {
			answer.Answers = append(answer.Answers, s.whyOne(ctx, a, d))
		}
	}
	return answer, nil
}

func (s *Service) whyOne(ctx context.Context, a *agent, d *deployment) events.WhyDecision {
	now := s.now()
	w := events.WhyDecision{Deployment: d.record.Deployment, Life: s.life(d)}
	s.mu.RLock()
	if log := s.releases[w.Deployment][d.record.Revision]; log != nil {
		w.Released = log.released.has(a.place)
	}
	collection, known := s.collections[d.record.Collection]
	meant := w.Released || d.order.Rolls == nil || s.gotForward(d).has(a.place)
	s.mu.RUnlock()
	member, err := d.target.Matches(a.facts)
	w.Member = member && meant
	switch {
	case err != nil:
		w.Says = fmt.Sprintf("not a member: %v", err)
	case !member:
		w.Says = "not a member: " + d.target.Explain(a.facts)
		if known && !collection.Removed && meantNow(collection.Collection, a) {
			w.Says += fmt.Sprintf("; collection %s was changed after the order was signed and includes the machine now: sign the deployment again", collection.Name)
		}
	case !meant:
		w.Says = fmt.Sprintf("not a member: deployment %s, which this one takes back, was not handed over to it", d.order.Rolls.Deployment)
	default:
		w.Says = "a member, " + s.standing(ctx, d, a, &w, now)
	}
	if w.Released && !member {
		w.Says += "; it was one when it was handed to execution: `chandler job why` tells what became of that"
	}
	return w
}

func meantNow(c events.Collection, a *agent) bool {
	t, err := target.New(c.Expression, c.Include, c.Exclude)
	if err != nil {
		return false
	}
	ok, err := t.Matches(a.facts)
	return ok && err == nil
}

// standing says in words where the deployment and the agent stand.
func (s *Service) standing(ctx context.Context, d *deployment, a *agent, w *events.WhyDecision, now time.Time) string {
	handed := ""
	if w.Released {
		handed = "handed to execution before that"
	}
	switch w.Life {
	case events.LifePending:
		return fmt.Sprintf("the deployment becomes available at %s, in %s", d.order.Available, d.order.Begins().Sub(now).Round(time.Second))
	case events.LifeHalted:
		state := s.rolloutOf(d)
		w.Phase, _ = s.phaseOf(d, state, a)
		return join("the rollout is halted: "+state.why(), handed, "not handed to execution while that lasts")
	case events.LifePaused:
		return join("the deployment is paused "+d.record.Because, handed, "not handed to execution while that lasts")
	case events.LifeStopped:
		return join("the deployment was stopped "+d.record.Because, handed, "never handed to execution")
	case events.LifeExpired:
		return join("the deployment ended at "+end(d.order).Format(time.RFC3339), handed, "never handed to execution")
	}
	if w.Released {
		w.Phase, _ = s.phaseOf(d, s.rolloutOf(d), a)
		return "handed to execution: `chandler job why` tells what became of it" + windowsSaid(d)
	}
	var held string
	if w.Phase, held = s.whyHeld(ctx, d, a); held != "" {
		return held
	}
	return "about to be handed to execution"
}

func join(state, handed, otherwise string) string {
	if handed == "" {
		handed = otherwise
	}
	return state + "; " + handed
}

// windowsSaid reminds of the order's maintenance windows, which are the machine's matter.
func windowsSaid(d *deployment) string {
	if len(d.order.Windows) == 0 || d.order.IgnoreWindows {
		return ""
	}
	return "; by the order's maintenance windows the machine itself decides when it starts"
}
