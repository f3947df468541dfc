package scheduling

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
)

// presence is how recently an agent must have been heard of to count as there: a few heartbeats.
const presence = 15 * time.Minute

type metrics struct {
	reports  prometheus.Counter
	released prometheus.Counter
	faults   prometheus.Counter
	timers   *prometheus.CounterVec
	phases   prometheus.Counter
	halts    prometheus.Counter
}

// newMetrics registers what the service counts, and what is read from its memory when it is asked for.
func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	m := &metrics{
		reports:  prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_scheduling_reports_total", Help: "Reports of agents' facts that were kept."}),
		released: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_scheduling_released_agents_total", Help: "Agents handed to execution by this replica, once for each deployment."}),
		faults:   prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_scheduling_evaluation_faults_total", Help: "Times a target could not be evaluated on an agent's facts; the agent is then not a member."}),
		timers:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_scheduling_timers_due_total", Help: "Timers that came due, by purpose."}, []string{"purpose"}),
		phases:   prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_scheduling_phases_opened_total", Help: "Phases of rollouts that this replica opened."}),
		halts:    prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_scheduling_halts_total", Help: "Rollouts that this replica halted at a bad gate."}),
	}
	collectors := []prometheus.Collector{
		m.reports, m.released, m.faults, m.timers, m.phases, m.halts,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_scheduling_agents_known", Help: "Agents of the fleet that have ever reported."},
			func() float64 { return float64(len(s.fleet.all())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_scheduling_agents_seen", Help: "Agents heard of in the last 15 minutes."}, s.seen),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_scheduling_twins", Help: "Agents of which two were heard at the same time within the last hour: copies that run with one identity."}, s.countTwins),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_scheduling_held_agents", Help: "Agents whom nothing but a limit of jobs in flight keeps from being handed to execution, once for each deployment."}, s.countHeld),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_scheduling_stuck_rollouts", Help: "Rollouts whose next phase is due and for which there is nobody: it opens when there is somebody, or when somebody skips it."}, s.countStuck),
	}
	for _, life := range []events.Life{events.LifeDraft, events.LifePending, events.LifeActive, events.LifePaused, events.LifeHalted, events.LifeStopped, events.LifeExpired} {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_scheduling_deployments", Help: "Deployments, by where they are in their life.",
			ConstLabels: prometheus.Labels{"life": string(life)}}, func() float64 { return s.countLife(life) }))
	}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (s *Service) seen() float64 {
	n, since := 0, s.now().Add(-presence)
	for _, a := range s.fleet.all() {
		if a.lastSeen().After(since) {
			n++
		}
	}
	return float64(n)
}

func (s *Service) countTwins() float64 {
	n, since := 0, s.now().Add(-twinsEvery)
	for _, a := range s.fleet.all() {
		if a.runs.twice().After(since) {
			n++
		}
	}
	return float64(n)
}

func (s *Service) countLife(life events.Life) float64 {
	if life == events.LifeDraft {
		return float64(len(s.waitingDrafts()))
	}
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, d := range s.deployments {
		if s.lifeLocked(d, now) == life {
			n++
		}
	}
	return float64(n)
}

func (s *Service) countStuck() float64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return float64(len(s.stuck))
}

func (s *Service) countHeld() float64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, held := range s.held {
		n += held
	}
	return float64(n)
}
