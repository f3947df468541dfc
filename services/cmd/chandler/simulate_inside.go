package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"

	"github.com/spf13/cobra"
)

// childTold is what a child is told at its start.
type childTold[T any] struct {
	Name    string `json:"name"`              // in names of files
	Profile string `json:"profile,omitempty"` // directory for profiles; empty: none
	Told    T      `json:"told"`
}

// inside is a child's way to speak with its parent.
type inside struct {
	name, profile string

	mu  sync.Mutex
	out *json.Encoder

	commands chan string // that are not of every child
	profiled io.Closer   // the profile that is being written
}

// newChild makes the hidden command of one kind of child. run is to say ready, and ends with ctx.
func newChild[T any](kind string, run func(ctx context.Context, told T, in *inside) error) *cobra.Command {
	return &cobra.Command{Use: kind, Hidden: true, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		// An interrupt from the terminal comes to every process: the parent then stops its children in their order.
		ctx, cancel := context.WithCancel(context.WithoutCancel(cmd.Context()))
		defer cancel()
		words := json.NewDecoder(cmd.InOrStdin())
		var told childTold[T]
		if err := words.Decode(&told); err != nil {
			return fmt.Errorf("this is a part of `chandler simulate`, which starts it: %w", err)
		}
		in := &inside{name: told.Name, profile: told.Profile, out: json.NewEncoder(cmd.OutOrStdout()), commands: make(chan string, 1)}
		go in.listen(ctx, words, cancel)
		if err := run(ctx, told.Told, in); err != nil {
			in.say(childWord{Error: err.Error()})
			return exitCode(1)
		}
		return nil
	}}
}

// say tells the parent. One that is gone is noticed by listen.
func (in *inside) say(w childWord) {
	in.mu.Lock()
	defer in.mu.Unlock()
	_ = in.out.Encode(w)
}

// listen takes commands, and ends the child when its standard input ends.
func (in *inside) listen(ctx context.Context, words *json.Decoder, cancel func()) {
	defer cancel()
	for {
		var c childCommand
		if err := words.Decode(&c); err != nil {
			return
		}
		switch c.Do {
		case doMeasure:
			in.answer(c.Do, in.beginProfile())
		case doMeasured:
			in.answer(c.Do, in.endProfile())
		default:
			select {
			case in.commands <- c.Do:
			case <-ctx.Done():
				return
			}
		}
	}
}

// answer says that something is done, or why not.
func (in *inside) answer(what string, err error) {
	if err != nil {
		in.say(childWord{Error: err.Error()})
		return
	}
	in.say(childWord{Done: what})
}

func (in *inside) beginProfile() error {
	if in.profile == "" {
		return nil
	}
	f, err := in.profileFile("cpu")
	if err != nil {
		return err
	}
	in.profiled = f
	return pprof.StartCPUProfile(f)
}

func (in *inside) endProfile() error {
	if in.profiled == nil {
		return nil
	}
	pprof.StopCPUProfile()
	err := in.profiled.Close()
	in.profiled = nil
	heap, opening := in.profileFile("heap")
	if opening != nil {
		return errors.Join(err, opening)
	}
	return errors.Join(err, pprof.Lookup("heap").WriteTo(heap, 0), heap.Close())
}

func (in *inside) profileFile(kind string) (*os.File, error) {
	return os.OpenFile(filepath.Join(in.profile, in.name+"."+kind+".pprof"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
}
