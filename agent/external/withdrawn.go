package external

import "chandler/events/resource"

// LeaseFor is the id of the lease that is held for an address; "": none is.
func (r *Reader) LeaseFor(address string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.held[resource.Longest(r.Resources, address)]; l != nil {
		return l.ID
	}
	return ""
}

// Withdraw gives up a lease that is over: what was opened by it is closed, and it is to be asked for anew. It says of which
// resource of the order it was; "": it was not held.
func (r *Reader) Withdraw(id string) (of string) {
	r.mu.Lock()
	r.withdrawn = append(r.withdrawn, id)
	for covering, l := range r.held {
		if l.ID == id {
			l.Clear()
			delete(r.held, covering)
			of = covering
		}
	}
	var over []*object
	for o := range r.open {
		if o.lease == id {
			over = append(over, o)
		}
	}
	r.mu.Unlock()
	for _, o := range over {
		o.Close()
	}
	return of
}
