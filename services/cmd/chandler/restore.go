package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/spf13/cobra"

	"chandler/services/backup"
	"chandler/services/daemon"
)

// restoring is the directory in which a restore is put together, below the data directory.
const restoring = "restoring"

// restoreFlags are those of restore, as typed.
type restoreFlags struct {
	data, administrator, identity string
	dryRun                        bool
	asked                         *asking
}

func newRestore(a *app) *cobra.Command {
	f := restoreFlags{}
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make an empty data directory a fleet again, of a backup", Args: cobra.ExactArgs(1),
		Long: `Reads all of a backup and holds it against its own list, and only then makes the data directory of it. That must
be empty: a restore takes nothing's place. Nothing runs meanwhile. Afterwards ` + "`chandler up`" + ` with the same --data starts
the fleet as it was; use the same addresses as before, so that agents find it.

Agents then ask what is outstanding, and tell again what they did since the backup; nothing runs twice. What administrators
did since is lost, and some of it must be done again at once: agents, users and tokens that were revoked since are let in
again. deploy/disaster.md says what, in which order.

--dry-run reads and checks all of the backup, says what is in it, and changes nothing.`,
		Example: `  chandler restore /backup/fleet-2026-12-01.age --data /var/lib/chandler --age-identity ~/backup-key.txt`,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.restore(cmd, f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", usageData)
	flags.StringVar(&f.administrator, "administrator-dir", "", "where the keys that make users go (default: DATA/administrator)")
	flags.StringVar(&f.identity, "age-identity", "", "file with the key of age that opens the backup (default: the passphrase is asked for)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "read and check all of it, say what is in it, change nothing")
	f.asked = a.asksPassphrase(cmd)
	flags.Lookup("passphrase-file").Usage = "file with the passphrase that the backup was encrypted with (default: it is asked for)"
	return cmd
}

func (a *app) restore(cmd *cobra.Command, f restoreFlags, file string) error {
	data, unlock, err := a.emptyDirectory(f)
	if err != nil {
		return err
	}
	defer unlock()
	keys, err := f.openWith(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	m, err := opened(file, keys, func(r io.Reader) (backup.Manifest, error) { return backup.Verify(cmd.Context(), r) })
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, part := range m.Parts() {
		if !slices.ContainsFunc(dataFiles{}.parts(), func(p dataPart) bool { return p.name == part }) {
			return fmt.Errorf("%s: it has a part %q, which this version does not know", file, part)
		}
	}
	row := madeBackup(file, info.Size(), m)
	taken := m.Taken.In(a.zone).Format("2006-01-02 15:04:05")
	if f.dryRun {
		return a.answer(cmd, row, file, "%s is complete: %s as of %s, %s, %s", file, fleetWords(m), taken, plural(row.Streams, "stream", "streams"), plural(row.Files, "file", "files"))
	}
	at := place{data}
	s := settling{at: at, from: filepath.Join(data, restoring), administrator: at.administrator()}
	if f.administrator != "" {
		if s.administrator, err = filepath.Abs(f.administrator); err != nil {
			return err
		}
	}
	if err := s.fill(cmd, file, keys, m); err != nil {
		return fmt.Errorf("restore %s to %s: %w", file, data, err)
	}
	a.tellRestored(cmd, at, m)
	return a.answer(cmd, row, data, "%s is restored to %s as of %s; start it with `%s up --data %s` and the addresses it had", fleetWords(m), data, taken, a.self, data)
}

// emptyDirectory makes sure that there is nothing that a restore could take the place of, and that nobody else makes
// something there.
func (a *app) emptyDirectory(f restoreFlags) (data string, unlock func(), err error) {
	if f.dryRun {
		return "", func() {}, nil
	}
	if data, err = a.dataDirectory(f.data); err != nil {
		return "", nil, err
	}
	if unlock, err = lockDirectory(data); err != nil {
		return "", nil, err
	}
	entries, err := os.ReadDir(data)
	for _, e := range entries {
		if !slices.Contains([]string{"lock", "lost+found", restoring}, e.Name()) {
			err = fmt.Errorf("%s is not empty (%s is there): a restore takes nothing's place; say another --data, or move that away", data, e.Name())
			break
		}
	}
	if err == nil {
		err = os.RemoveAll(filepath.Join(data, restoring)) // of a restore that was interrupted
	}
	if err != nil {
		unlock()
		return "", nil, err
	}
	return data, unlock, nil
}

// openWith are the keys that open the file; none where it is not encrypted.
func (f restoreFlags) openWith(file string) ([]age.Identity, error) {
	head, err := readHead(file)
	if err != nil {
		return nil, err
	}
	const intro, byPassphrase = "age-encryption.org/v1\n", "-> scrypt "
	rest, encrypted := bytes.CutPrefix(head, []byte(intro))
	switch {
	case !encrypted && (f.identity != "" || f.asked.file != ""):
		return nil, fmt.Errorf("%s is not encrypted, and a key or passphrase is named for it: is it the backup that you mean? Without them it is read as it is", file)
	case !encrypted:
		return nil, nil
	case bytes.HasPrefix(rest, []byte(byPassphrase)):
		secret, err := f.asked.passphrase("Passphrase of " + file + ": ")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		defer clear(secret)
		i, err := age.NewScryptIdentity(string(secret))
		return []age.Identity{i}, err
	case f.identity == "":
		return nil, fmt.Errorf("%s is encrypted for the holder of a key: name the file of that with --age-identity", file)
	}
	text, err := readPrivate(f.identity)
	if err != nil {
		return nil, fmt.Errorf("--age-identity: %w", err)
	}
	defer clear(text)
	keys, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("--age-identity %s: %w", f.identity, err)
	}
	return keys, nil
}

func readHead(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

// opened reads a backup from its beginning, decrypted.
func opened(file string, keys []age.Identity, read func(io.Reader) (backup.Manifest, error)) (backup.Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return backup.Manifest{}, err
	}
	defer f.Close()
	r := io.Reader(bufio.NewReaderSize(f, 1<<20))
	if len(keys) > 0 {
		r, err = age.Decrypt(r, keys...)
		if _, other := errors.AsType[*age.NoIdentityMatchError](err); other {
			err = errors.New("the passphrase or key does not open it")
		}
		if err != nil {
			return backup.Manifest{}, err
		}
	}
	return read(r)
}

// settling puts a restored fleet to its places.
type settling struct {
	at            place
	from          string // where it is put together
	administrator string
}

// fill restores below the data directory, and then gives each part its place. identity is the last: once it is there the
// fleet is. An error leaves nothing behind but what had its place already.
func (s settling) fill(cmd *cobra.Command, file string, keys []age.Identity, verified backup.Manifest) (err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(s.from)) }()
	if err := roomFor(s.at.data, verified); err != nil {
		return err
	}
	if err := os.MkdirAll(s.from, 0o700); err != nil {
		return err
	}
	log, err := daemon.NewLogger(cmd.ErrOrStderr(), daemon.LogConfig{Level: "warn", Format: "text"})
	if err != nil {
		return err
	}
	m, err := opened(file, keys, func(r io.Reader) (backup.Manifest, error) { return backup.Extract(cmd.Context(), r, s.from, log) })
	if err != nil {
		return err
	}
	if !m.Taken.Equal(verified.Taken) || len(m.Entries) != len(verified.Entries) {
		return errors.New("the file was replaced while it was read")
	}
	if err := s.refuseOthers(); err != nil {
		return err
	}
	return s.settle(cmd.Context())
}

func roomFor(dir string, m backup.Manifest) error {
	usage, err := disk.Usage(dir)
	if err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	if need := uint64(m.Size()); need > usage.Free {
		return fmt.Errorf("it takes %s, and %s has %s", byteSize(m.Size()), dir, byteSize(int64(usage.Free)))
	}
	return nil
}

// outside are the parts that have their places elsewhere than in the data directory.
func (s settling) outside() map[string]string {
	places := map[string]string{partKey: filepath.Dir(s.at.accountsKey())}
	if s.administrator != s.at.administrator() {
		places[administration] = s.administrator
	}
	return places
}

// refuseOthers keeps a restore from mixing this fleet's keys with another's, before anything has its place.
func (s settling) refuseOthers() error {
	for part, to := range s.outside() {
		err := filepath.WalkDir(filepath.Join(s.from, part), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			below, err := filepath.Rel(filepath.Join(s.from, part), name)
			if err != nil {
				return err
			}
			there, err := os.ReadFile(filepath.Join(to, below))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			restored, readErr := readSmall(name)
			if err == nil && readErr == nil && !bytes.Equal(there, restored) {
				err = fmt.Errorf("%s is there already, and is another than the backup's: move it away", filepath.Join(to, below))
			}
			clear(restored)
			clear(there)
			return errors.Join(err, readErr)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s settling) settle(ctx context.Context) error {
	outside := s.outside()
	entries, err := os.ReadDir(s.from)
	if err != nil {
		return err
	}
	parts := []string{}
	for _, e := range entries {
		parts = append(parts, e.Name())
	}
	slices.SortStableFunc(parts, func(a, b string) int {
		last := func(name string) int { return strings.Count(name, partIdentity) }
		return last(a) - last(b)
	})
	for _, part := range parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := filepath.Join(s.from, part)
		if to, ok := outside[part]; ok {
			err = putFiles(from, to)
		} else {
			err = os.Rename(from, filepath.Join(s.at.data, part))
		}
		if err != nil {
			return err
		}
	}
	return backup.SyncDir(s.at.data)
}

// tellRestored says what is not in the backup, and what is to be done next.
func (a *app) tellRestored(cmd *cobra.Command, at place, m backup.Manifest) {
	out := cmd.ErrOrStderr()
	switch parts := m.Parts(); {
	case len(parts) == 0:
		note(out, "The backup has streams and buckets alone: put identity, accounts, keys and content back into %s before you start it.", at.data)
		return
	case !m.Keys:
		note(out, "The backup has no private keys: put those of identity, administrator, tls and %s back from elsewhere before you start it.", filepath.Dir(at.accountsKey()))
	case !slices.Contains(parts, administration):
		note(out, "The administrator's keys were not in the backup.")
	}
	note(out, "What was done since the backup is lost. Agents tell again what they did; you, do again:\n"+
		"  %[1]s agent revoke, user revoke, token rm   for all who were revoked since: they are let in again\n"+
		"  %[1]s token ls                              tokens that were used up since can be used again: remove them\n"+
		"  %[1]s package publish, apply                what was published and deployed since\n"+
		"deploy/disaster.md has the whole list.", a.self)
}
