package main

import "fmt"

// writtenContext is the context that up wrote, and what it took the place of.
type writtenContext struct {
	connection
	notes []string // for the administrator
}

// localName is the context that up writes where none is named.
const localName = "local"

// writeContext makes the context that was named, or "local", and selects it. A "local" that belongs to
// another fleet stays: this one is then named after its fleet.
func (a *app) writeContext(url string, at place) (writtenContext, error) {
	store, err := a.contexts()
	if err != nil {
		return writtenContext{}, err
	}
	w := writtenContext{connection: connection{Name: a.context, Server: url, Caller: defaultCaller, SigningKey: at.key(), Trust: at.trust()}}
	if w.Name == "" {
		if w.Name, err = store.nameFor(at); err != nil {
			return w, err
		}
		if w.Name != localName {
			w.note("Context %q belongs to another fleet and stays as it is.", localName)
		}
	}
	if there, err := store.load(w.Name); err == nil {
		if there.Trust == w.Trust {
			w.Caller, w.SigningKey = there.Caller, there.SigningKey // the key may have been moved
		} else {
			w.note("Context %q led to %s with trust bundle %s before; that is replaced.", w.Name, there.Server, cellOr(there.Trust, "none"))
		}
	}
	before, err := store.selected()
	if err != nil {
		return w, err
	}
	if before != "" && before != w.Name {
		w.note("Context %q was selected before: %s context use %s goes back to it.", before, a.self, before)
	}
	if err := store.save(w.connection); err != nil {
		return w, err
	}
	return w, store.choose(w.Name)
}

func (w *writtenContext) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// nameFor is "local", unless that leads to another fleet that still exists.
func (s contextStore) nameFor(at place) (string, error) {
	there, err := s.load(localName)
	if err != nil || there.Trust == at.trust() {
		return localName, nil // none, or one that nobody can use, or ours
	}
	other, err := readTrust(there.Trust)
	if err != nil {
		return localName, nil // nothing can be deployed by it any more
	}
	trust, err := readTrust(at.trust())
	if err != nil || other.Fleet == trust.Fleet {
		return localName, err
	}
	return localName + "-" + trust.Fleet[:min(fleetShown, len(trust.Fleet))], nil
}

// fleetShown is how much of a fleet's name a context's name has.
const fleetShown = 8
