package scheduling

import "sync"

// work is what there is to look at. It coalesces: what is noted ten times is looked at once.
type work struct {
	mu          sync.Mutex
	agents      map[string]*agent // whose facts are new
	deployments map[string]bool
	collections map[string]bool
	wake        chan struct{} // holds one token while there is something
}

func newWork() *work {
	return &work{agents: map[string]*agent{}, deployments: map[string]bool{}, collections: map[string]bool{}, wake: make(chan struct{}, 1)}
}

func (w *work) agent(a *agent)         { w.note(func() { w.agents[a.facts.ID] = a }) }
func (w *work) deployment(name string) { w.note(func() { w.deployments[name] = true }) }
func (w *work) collection(name string) { w.note(func() { w.collections[name] = true }) }

func (w *work) note(add func()) {
	w.mu.Lock()
	add()
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take gives everything noted and begins anew.
func (w *work) take() (agents []*agent, deployments, collections map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.agents {
		agents = append(agents, a)
	}
	deployments, collections = w.deployments, w.collections
	w.agents, w.deployments, w.collections = map[string]*agent{}, map[string]bool{}, map[string]bool{}
	return agents, deployments, collections
}
