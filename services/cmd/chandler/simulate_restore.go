package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"chandler/events/access"
	"chandler/services/backup"
	"chandler/services/checker"
)

// restored tells of a disaster and what followed, in seconds.
type restored struct {
	Backup      float64 `json:"backup_s"` // it took
	BackupBytes int64   `json:"backup_bytes"`
	Restore     float64 `json:"restore_s"` // making a broker's data of it took
	// Back is from the loss until every agent was connected and answered, and execution knew again how each job had ended that
	// was deployed before the backup.
	Back float64 `json:"back_s"`
	// RanSince are the agents that ran what was deployed after the backup, of which the restored services know nothing.
	RanSince int `json:"ran_since_backup"`
	// Reached is how long a deployment after that took, to every agent.
	Reached float64 `json:"reached_s"`
}

// restoreAmid loses the broker's data and restores it from a backup that is older.
func (s *simulation) restoreAmid(ctx, running context.Context, raw *rawBroker) error {
	if _, err := s.awaitWork(running, underWay); err != nil {
		return err
	}
	s.result.returned, s.result.restored = &returned{}, &restored{}
	r := s.result.restored
	file := filepath.Join(s.dir, "backup")
	began := s.now()
	if err := s.backUp(ctx, raw, file); err != nil {
		return err
	}
	r.Backup = s.since(began)
	s.step("a backup of %s was taken in %.1f s", byteSize(r.BackupBytes), r.Backup)
	if err := s.followAll(ctx, running, s.names); err != nil {
		return err
	}
	s.lost = s.name("-since")
	if err := s.deployAndFollow(ctx, running, s.lost); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	before, lost := s.stats(), s.now()
	if err := s.loseAndRestore(ctx, file, r); err != nil {
		return err
	}
	if err := s.comeBack(ctx, running, before, s.now(), len(s.leaves) == 0); err != nil {
		return err
	}
	r.Back = s.since(lost)
	s.step("everybody is back, %.1f s after the loss", r.Back)
	began = s.now()
	after := s.name("-after")
	s.names = append(slices.Clone(s.names), after)
	if err := s.deployAndFollow(ctx, running, after); err != nil {
		return err
	}
	r.Reached = s.since(began)
	return nil
}

// deployAndFollow deploys once more to everybody.
func (s *simulation) deployAndFollow(ctx, running context.Context, name string) error {
	send, err := s.propose(ctx, s.name(""), []string{name}, s.jitter())
	if err != nil {
		return err
	}
	if err := send(running); err != nil {
		return err
	}
	s.step("%s is signed and sent", name)
	return s.followAll(ctx, running, []string{name})
}

// backUp copies the streams to a file.
func (s *simulation) backUp(ctx context.Context, raw *rawBroker, file string) (err error) {
	account, err := s.streamsOf()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := backup.Write(ctx, out, backup.Options{Conn: raw.conn, Account: account, Version: version, Now: s.now(), Scratch: s.dir}); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	s.result.BackupBytes, err = out.Seek(0, io.SeekCurrent)
	return err
}

// streamsOf is the account that the streams belong to.
func (s *simulation) streamsOf() (string, error) {
	if !s.told.Identities {
		return backup.GlobalAccount, nil
	}
	of, err := readFleet(place{s.told.Data}.identity())
	return of.Accounts[access.Fleet], err
}

// loseAndRestore kills broker and services, throws the broker's data away, and starts new ones on what the backup holds.
func (s *simulation) loseAndRestore(ctx context.Context, file string, r *restored) error {
	if err := s.countStored(ctx, 1); err != nil {
		return err
	}
	lost := s.now()
	s.meters.services.leave()
	if err := errors.Join(s.endBroker(true), s.services.kill()); err != nil {
		return err
	}
	data := place{s.told.Data}.broker()
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	s.step("the broker's data is lost")
	began := s.now()
	m, err := s.extract(ctx, file, data)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	r.Restore = s.since(began)
	for _, one := range m.Streams { // what is stored from here on counts again
		if slices.Contains(storing(), one.Name) {
			s.result.Events -= int64(one.Last)
			s.result.Bytes -= int64(one.Bytes)
		}
	}
	if err := s.resumeBroker(ctx); err != nil {
		return err
	}
	if err := s.startServices(ctx); err != nil {
		return err
	}
	if err := s.meters.services.enter(s.services); err != nil {
		return err
	}
	s.result.Down = s.since(lost)
	s.step("a new broker is up on what the backup held")
	return nil
}

// extract makes a broker's data of a backup, as chandler restore does.
func (s *simulation) extract(ctx context.Context, file, data string) (backup.Manifest, error) {
	log, err := simulatedLog()
	if err != nil {
		return backup.Manifest{}, err
	}
	in, err := os.Open(file)
	if err != nil {
		return backup.Manifest{}, err
	}
	defer in.Close()
	if _, err := backup.Verify(ctx, bufio.NewReader(in)); err != nil {
		return backup.Manifest{}, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return backup.Manifest{}, err
	}
	to := filepath.Join(s.dir, "restoring")
	m, err := backup.Extract(ctx, bufio.NewReader(in), to, log)
	if err != nil {
		return m, err
	}
	return m, os.Rename(filepath.Join(to, backup.StoreName), data)
}

// countForgotten counts the agents that ran what the restored services know nothing of, and what ran twice there.
func (s *simulation) countForgotten() error {
	if s.lost == "" {
		return nil
	}
	var runs []checker.Run
	agents := map[string]bool{}
	for _, file := range s.evidence {
		err := readEvidence(file, func(l evidenceLine) {
			if l.Run != nil && l.Run.Deployment == s.lost {
				runs, agents[l.Run.Agent] = append(runs, checkedRun(*l.Run)), true
			}
		})
		if err != nil {
			return err
		}
	}
	s.countTwice(runs)
	s.result.RanSince = len(agents)
	return nil
}

// verdict is an error where what was deployed after the backup did not run everywhere. r may be nil.
func (r *restored) verdict(agents int) error {
	if r != nil && r.RanSince != agents {
		return fmt.Errorf("%d of %d agents ran what was deployed after the backup", r.RanSince, agents)
	}
	return nil
}

func (r *restored) fields() []field {
	if r == nil {
		return nil
	}
	return []field{
		{"Backup", fmt.Sprintf("%s, taken in %.1f s", byteSize(r.BackupBytes), r.Backup)},
		{"Restore", fmt.Sprintf("%.1f s; all as before %.1f s after the loss; the next deployment ended everywhere in %.1f s", r.Restore, r.Back, r.Reached)},
	}
}
