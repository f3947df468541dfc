package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/process"
)

// meters read what the processes of a simulation use, as the operating system counts it.
type meters struct {
	broker, services *meter // nil: they run elsewhere
	leaves, agents   []*meter
	whole            machineTime // when the measuring began
}

// meter reads one process.
type meter struct {
	process *process.Process
	rss     uint64  // at the beginning
	cpu     float64 // seconds, when the measuring began; less those of processes that it took the place of
}

func newMeter(c *child) (*meter, error) {
	if c == nil {
		return nil, nil
	}
	p, err := process.NewProcess(int32(c.cmd.Process.Pid))
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", c.name, err)
	}
	m := &meter{process: p}
	if m.rss, err = m.memory(); err != nil {
		return nil, fmt.Errorf("measure %s: %w", c.name, err)
	}
	return m, nil
}

func (m *meter) memory() (uint64, error) {
	info, err := m.process.MemoryInfo()
	if err != nil {
		return 0, err
	}
	return info.RSS, nil
}

// seconds of CPU that the process has used, in its own code and in the system's; those of programs that it started are not
// among them.
func (m *meter) seconds() float64 {
	times, err := m.process.Times()
	if err != nil {
		return 0
	}
	return times.User + times.System
}

// used are the seconds of CPU since the measuring began.
func (m *meter) used() float64 { return m.seconds() - m.cpu }

// leave keeps what the process has used, which ends now; enter goes on with another in its place.
func (m *meter) leave() { m.cpu = -m.used() }

func (m *meter) enter(c *child) error {
	next, err := newMeter(c)
	if err == nil {
		m.process = next.process
	}
	return err
}

// machineTime is what all cores of the machine did since it started, in seconds.
type machineTime struct{ busy, all float64 }

// machineNow is zero where the system does not tell.
func machineNow() machineTime {
	times, err := cpu.Times(false)
	if err != nil || len(times) != 1 {
		return machineTime{}
	}
	t := times[0]
	busy := t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
	return machineTime{busy, busy + t.Idle + t.Iowait}
}

// newMeters is called before agents connect.
func (s *simulation) newMeters() (*meters, error) {
	broker, err := newMeter(s.broker)
	if err != nil {
		return nil, err
	}
	services, err := newMeter(s.services)
	if err != nil {
		return nil, err
	}
	leaves, err := newMetersOf(s.leaves)
	return &meters{broker: broker, services: services, leaves: leaves}, err
}

func newMetersOf(children []*child) (all []*meter, err error) {
	for _, c := range children {
		one, err := newMeter(c)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (m *meters) add(agents []*child) (err error) {
	m.agents, err = newMetersOf(agents)
	return err
}

func (m *meters) all() (all []*meter) {
	for _, one := range slices.Concat([]*meter{m.broker, m.services}, m.leaves, m.agents) {
		if one != nil {
			all = append(all, one)
		}
	}
	return all
}

// begin is called when the measured run begins, end when it is over.
func (m *meters) begin() {
	m.whole = machineNow()
	for _, one := range m.all() {
		one.cpu = one.seconds()
	}
}

func (m *meters) end(r *simulated, agents, jobs int) error {
	perJob := func(all ...*meter) (us float64) {
		for _, one := range all {
			if one != nil {
				us += one.used() * 1e6 / float64(jobs)
			}
		}
		return math.Round(us)
	}
	ours := 0.0
	for _, one := range m.all() {
		ours += one.used()
	}
	if now := machineNow(); now.all > m.whole.all {
		r.Others = max(0, now.busy-m.whole.busy-ours) / (now.all - m.whole.all)
	}
	r.BrokerCPU, r.ServicesCPU, r.LeafCPU, r.AgentsCPU = perJob(m.broker), perJob(m.services), perJob(m.leaves...), perJob(m.agents...)
	perAgent := func(one *meter) (float64, error) {
		if one == nil {
			return 0, nil
		}
		now, err := one.memory()
		return math.Round((float64(now) - float64(one.rss)) / float64(agents)), err
	}
	var err error
	if r.BrokerRSS, err = perAgent(m.broker); err != nil {
		return err
	}
	for _, one := range m.leaves {
		grown, err := perAgent(one)
		if err != nil {
			return err
		}
		r.LeafRSS += grown
	}
	for _, one := range m.agents {
		now, err := one.memory()
		if err != nil {
			return err
		}
		r.AgentsRSS += math.Round(float64(now) / float64(agents))
	}
	r.ServicesRSS, err = perAgent(m.services)
	return err
}
