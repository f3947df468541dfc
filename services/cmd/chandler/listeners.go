package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// listener is where a process takes connections. What runs is noted in the data directory, so that doctor
// can tell what others on the network could read.
type listener struct {
	What    string `json:"what"` // broker, content or metrics
	Address string `json:"address"`
	TLS     bool   `json:"tls"`
}

func (a *assembly) listens(what, address string) {
	a.listeners = append(a.listeners, listener{what, address, a.TLS != nil})
}

// listenersDir holds a file for each process, named after its services.
func (p place) listenersDir() string { return filepath.Join(p.data, "listeners") }

func (a *assembly) listenersFile() string {
	return filepath.Join(place{a.Data}.listenersDir(), strings.Join(a.Services, "+")+".json")
}

// noteListeners writes what listens now.
func (a *assembly) noteListeners() error {
	data, err := json.MarshalIndent(a.listeners, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(a.listenersFile(), append(data, '\n'))
}

// forgetListeners takes the note back; a process that is killed leaves it, and doctor asks the addresses.
func (a *assembly) forgetListeners() {
	if err := os.Remove(a.listenersFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.Log.Warn("the note of what listens could not be removed", "component", "server", "error", err)
	}
}

// readListeners are those of every process of a data directory.
func readListeners(at place) (all []listener, err error) {
	entries, err := os.ReadDir(at.listenersDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		name := filepath.Join(at.listenersDir(), e.Name())
		data, err := readSmall(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // stopped meanwhile
		}
		if err != nil {
			return nil, err
		}
		var of []listener
		if err := json.Unmarshal(data, &of); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		all = append(all, of...)
	}
	return all, nil
}
