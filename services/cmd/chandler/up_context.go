package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// writtenContext is the context that up wrote, and what it took the place of.
type writtenContext struct {
	connection
	notes []string // for the administrator
}

// localName is the context that up writes where none is named.
const localName = "local"

// writeContext makes the context that was named, or "local", and selects it. A "local" that belongs to
// another fleet stays: this one is then named after its fleet. A context of this fleet keeps what was
// changed in it.
func (a *app) writeContext(url, ca string, at place, administrator string) (writtenContext, error) {
	store, err := a.contexts()
	if err != nil {
		return writtenContext{}, err
	}
	fleet, err := readFleet(at.identity())
	if err != nil {
		return writtenContext{}, err
	}
	w := writtenContext{connection: connection{Name: a.context, Server: url, Caller: defaultCaller, Fleet: fleet.Fleet, CA: ca, Data: at.data,
		Administrator: administrator, Credentials: filepath.Join(administrator, adminCreds)}}
	if w.Name == "" {
		if w.Name = store.nameFor(fleet.Fleet); w.Name != localName {
			w.note("Context %q belongs to another fleet and stays as it is.", localName)
		}
	}
	if there, err := store.load(w.Name); err == nil && there.Fleet == fleet.Fleet {
		w.keep(there, a.self)
	} else if err == nil {
		w.note("Context %q led to %s (fleet %s) before; that is replaced.", w.Name, there.Server, cellOr(there.Fleet, "not known"))
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

// keep takes over what a context of this fleet names: the administrator's directory and the keys may have
// been moved.
func (w *writtenContext) keep(there connection, self string) {
	w.Caller, w.TrustDir, w.SigningKey = there.Caller, there.TrustDir, there.SigningKey
	if w.CA == "" && strings.HasPrefix(w.Server, "tls:") {
		w.CA = there.CA
	}
	if present(there.Credentials) || !present(w.Credentials) && there.Credentials != "" {
		w.Credentials = there.Credentials
	}
	if present(there.Administrator) || !present(w.Administrator) && there.Administrator != "" {
		w.Administrator = there.Administrator
	}
	if !present(w.Credentials) {
		w.note("The credentials %s of context %q are not there: where you moved the administrator's directory, say %s context add %s --administrator NEW-PLACE.", w.Credentials, w.Name, self, w.Name)
	}
}

// present says whether a file is there as far as can be seen.
func present(name string) bool {
	there, err := exists(name)
	return name != "" && (there || err != nil)
}

func (w *writtenContext) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// nameFor is "local", unless that leads to another fleet that somebody here can still speak to.
func (s contextStore) nameFor(fleet string) string {
	there, err := s.load(localName)
	if err != nil || there.Fleet == fleet || there.Fleet == "" {
		return localName // none, or one that nobody can use, or ours
	}
	if !present(there.Credentials) {
		return localName
	}
	return localName + "-" + fleet[:min(fleetShown, len(fleet))]
}

// fleetShown is how much of a fleet's name a context's name has.
const fleetShown = 8
