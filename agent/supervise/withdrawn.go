package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"chandler/events"
)

const (
	withdrawnFile = "withdrawn"
	maxWithdrawn  = 64 << 10 // bytes that are read at a time
)

// Withdraw tells the supervisor that a lease, which a loan named, is over; it hears that within a fraction of a second, and
// does nothing if it reads by no such lease. A run that has no directory yet need not hear it: what its supervisor asks for
// comes after.
func (r *Run) Withdraw(lease string) error {
	if err := events.ValidToken(lease); err != nil {
		return fmt.Errorf("withdraw lease: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(r.dir, withdrawnFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		// One write, so that lines of several callers do not mix; the first byte ends a line that a full disk tore.
		_, err = file.WriteString("\n" + lease + "\n")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("withdraw lease %s: %w", lease, err)
	}
	return nil
}

// withdrawals reads what Withdraw wrote, each line once.
type withdrawals struct {
	dir  string
	read int64 // bytes
}

// next are the leases that were withdrawn since the last call.
func (w *withdrawals) next() ([]string, error) {
	path := filepath.Join(w.dir, withdrawnFile)
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == w.read {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data := make([]byte, maxWithdrawn)
	n, err := file.ReadAt(data, w.read)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	whole := bytes.LastIndexByte(data[:n], '\n') + 1
	if whole == 0 && n == maxWithdrawn {
		whole = n // no lease
	}
	w.read += int64(whole)
	var leases []string
	for line := range bytes.Lines(data[:whole]) {
		if lease := string(bytes.TrimSpace(line)); events.ValidToken(lease) == nil {
			leases = append(leases, lease)
		}
	}
	return leases, nil
}
