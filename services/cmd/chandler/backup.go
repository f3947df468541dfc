package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"github.com/nats-io/jwt/v2"
	"github.com/spf13/cobra"

	"chandler/events/access"
	"chandler/services/backup"
)

// backupFlags are those of backup, as typed.
type backupFlags struct {
	data, identity, administrator string
	recipients                    []string
	withoutKeys, streams          bool
	asked                         *asking
}

func newBackup(a *app) *cobra.Command {
	f := backupFlags{}
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write the whole fleet to one file, also while it runs", Args: cobra.ExactArgs(1),
		Long: `Writes all that the broker and the services keep to one file: every stream and bucket, packages, accounts,
identities, certificates, and the administrator's keys where they are on this machine. It runs where ` + "`chandler up`" + ` runs
or ran; services need not be stopped. With --streams it takes streams and buckets alone, from the broker of the context, whose
credentials must be DATA/identity/provisioner.creds.

The file holds the fleet's private keys and is encrypted with age: for those that --recipient names, who open it with
their key, or with a passphrase. --without-keys leaves all private keys out; such a file gives back what was done and not
who may do it, and needs no encryption.

It is written to FILE.new and gets its name when it is complete. Meanwhile the directory needs room for the streams twice.
` + "`chandler restore --dry-run FILE`" + ` reads all of it and changes nothing. The keys that sign what agents run
(` + "`chandler trust init`" + ` made them) are not in it: keep copies of those elsewhere.`,
		Example: `  chandler backup /backup/fleet-$(date +%F).age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p
  chandler backup --without-keys /backup/fleet.tar`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.backup(cmd, f, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.data, "data", "", usageData)
	flags.StringVar(&f.identity, "identity", "", "directory of the fleet's identities (default: DATA/identity)")
	flags.StringVar(&f.administrator, "administrator-dir", "", "directory of the keys that make users (default: DATA/administrator)")
	flags.StringArrayVar(&f.recipients, "recipient", nil, "public key of age (age1…) that opens the file; repeatable")
	flags.BoolVar(&f.withoutKeys, "without-keys", false, "leave out every private key")
	flags.BoolVar(&f.streams, "streams", false, "streams and buckets alone, from the broker of the context")
	f.asked = a.asksPassphrase(cmd)
	flags.Lookup("passphrase-file").Usage = "file with the passphrase to encrypt with (default: it is asked for)"
	cmd.MarkFlagsMutuallyExclusive("streams", "data")
	cmd.MarkFlagsMutuallyExclusive("recipient", "passphrase-file")
	return cmd
}

const usageData = "directory of everything that is kept (default: the user's state directory, or /var/lib/chandler for root)"

func (a *app) backup(cmd *cobra.Command, f backupFlags, file string) error {
	from, err := a.openOrigin(cmd.Context(), f)
	if err != nil {
		return err
	}
	defer from.close()
	recipients, err := f.encryptFor()
	if err != nil {
		return err
	}
	o := from.options
	o.Version, o.Now, o.Scratch = version, a.now(), filepath.Dir(file)
	o.Copied = func(s backup.Stream) {
		note(cmd.ErrOrStderr(), "copied %s: %s, %s", s.Name, plural(int(s.Messages), "message", "messages"), byteSize(int64(s.Bytes)))
	}
	var m backup.Manifest
	size, err := writeComplete(file, func(w io.Writer) (err error) {
		m, err = writeSealed(cmd.Context(), w, o, recipients)
		return err
	})
	if err != nil {
		return fmt.Errorf("back up to %s: %w", file, err)
	}
	for _, n := range from.notes {
		note(cmd.ErrOrStderr(), "note: %s", n)
	}
	return a.answer(cmd, madeBackup(file, size, m), file, "%s holds %s as of %s (%s); `%s restore --dry-run %s` tries it",
		file, fleetWords(m), m.Taken.In(a.zone).Format("2006-01-02 15:04:05"), byteSize(size), a.self, file)
}

// backupRow is what backup and restore answer.
type backupRow struct {
	File     string   `json:"file"`
	Size     int64    `json:"size"`
	Fleet    string   `json:"fleet,omitempty"`
	Taken    string   `json:"taken"`
	Keys     bool     `json:"keys"`
	Parts    []string `json:"parts"`
	Streams  int      `json:"streams"`
	Messages uint64   `json:"messages"`
	Files    int      `json:"files"`
}

func madeBackup(file string, size int64, m backup.Manifest) backupRow {
	r := backupRow{File: file, Size: size, Fleet: m.Fleet, Taken: m.Taken.Format("2006-01-02T15:04:05Z07:00"), Keys: m.Keys, Parts: m.Parts(), Streams: len(m.Streams)}
	for _, s := range m.Streams {
		r.Messages += s.Messages
	}
	for _, e := range m.Entries {
		if strings.HasPrefix(e.Name, "files/") {
			r.Files++
		}
	}
	return r
}

// fleetWords name what is in a backup.
func fleetWords(m backup.Manifest) string {
	switch {
	case len(m.Parts()) == 0:
		return "the streams of a fleet"
	case !m.Keys:
		return "fleet " + m.Fleet + " without its private keys"
	}
	return "fleet " + m.Fleet
}

// encryptFor are those who can open the file; none where no private key is in it.
func (f backupFlags) encryptFor() (all []age.Recipient, err error) {
	for _, text := range f.recipients {
		r, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("--recipient %s: %w; `age-keygen` makes a key and says its public half, age1…", text, err)
		}
		all = append(all, r...)
	}
	if len(all) > 0 || (f.withoutKeys || f.streams) && f.asked.file == "" {
		return all, nil
	}
	secret, err := f.asked.newPassphrase("Passphrase for the backup: ")
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	r, err := age.NewScryptRecipient(string(secret))
	return []age.Recipient{r}, err
}

// writeSealed writes a backup, encrypted where there are recipients.
func writeSealed(ctx context.Context, w io.Writer, o backup.Options, recipients []age.Recipient) (backup.Manifest, error) {
	if len(recipients) == 0 {
		return backup.Write(ctx, w, o)
	}
	sealed, err := age.Encrypt(w, recipients...)
	if err != nil {
		return backup.Manifest{}, err
	}
	m, err := backup.Write(ctx, sealed, o)
	if err != nil {
		return m, err
	}
	return m, sealed.Close()
}

// writeComplete gives a file its name when all of it is on the disk, for its owner alone.
func writeComplete(name string, write func(io.Writer) error) (size int64, err error) {
	unfinished := name + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	f, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if info, statErr := f.Stat(); statErr == nil {
		size = info.Size()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(unfinished, name)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(unfinished))
	}
	return size, backup.SyncDir(filepath.Dir(name))
}

// origin is where a backup comes from.
type origin struct {
	options backup.Options
	notes   []string
	close   func()
}

// openOrigin opens the streams: those of the context's broker, or of a data directory, whose broker runs or not.
func (a *app) openOrigin(ctx context.Context, f backupFlags) (*origin, error) {
	if f.streams {
		where, err := a.current()
		if err != nil {
			return nil, err
		}
		s, err := a.dialOrigin(where)
		if err != nil {
			return nil, err
		}
		s.options.Account, err = accountOf(where)
		if err != nil {
			s.close()
			return nil, err
		}
		return s, nil
	}
	data, err := a.dataDirectory(f.data)
	if err != nil {
		return nil, err
	}
	at := place{data}
	from := dataFiles{at: at, identity: f.identity, administrator: f.administrator, public: f.withoutKeys}
	from.complete()
	fleet, err := readFleet(from.identity)
	if err != nil {
		return nil, fmt.Errorf("%w; say --data, or --streams for a broker that runs elsewhere", err)
	}
	s, err := a.openStreams(ctx, from, fleet.Accounts[access.Fleet])
	if err != nil {
		return nil, err
	}
	s.options.Fleet, s.options.Account, s.options.Keys = fleet.Fleet, fleet.Accounts[access.Fleet], !f.withoutKeys
	s.options.Files, s.options.Steady = from.list, from.keyset()
	s.notes = from.missing()
	return s, nil
}

// openStreams opens the store of a broker that does not run, or connects to the one that does.
func (a *app) openStreams(ctx context.Context, from dataFiles, account string) (*origin, error) {
	here, err := exists(filepath.Join(from.at.broker(), "jetstream"))
	if err != nil {
		return nil, err
	}
	if here {
		if unlock, err := lockDirectory(from.at.data); err == nil {
			o, err := backup.Open(ctx, from.at.broker(), account, nil)
			if err != nil {
				unlock()
				return nil, err
			}
			return &origin{options: backup.Options{Conn: o.Conn}, close: func() { o.Close(); unlock() }}, nil
		}
	}
	where, err := a.contextOf(from.at.data)
	if err != nil {
		return nil, err
	}
	where.Credentials = identities{dir: from.identity}.provisioner()
	return a.dialOrigin(where)
}

// contextOf is the context that names a data directory, or the one that was chosen.
func (a *app) contextOf(data string) (connection, error) {
	store, err := a.contexts()
	if err != nil {
		return connection{}, err
	}
	all, err := store.list()
	if err != nil {
		return connection{}, err
	}
	if a.context == "" {
		for _, c := range all {
			if c.Data == data {
				return c, nil
			}
		}
	}
	return a.current()
}

// dialOrigin connects as the provisioner.
func (a *app) dialOrigin(where connection) (*origin, error) {
	c, err := dial(where, a.timeout)
	if err != nil {
		return nil, err
	}
	if c.role != "" && c.role != access.Provisioner {
		c.bus.Conn().Close()
		return nil, fmt.Errorf("%s is a user with role %s, and streams are copied as %s: `%s context add NAME --server %s --credentials DATA/identity/provisioner.creds`, and --context NAME", where.Credentials, c.role, access.Provisioner, a.self, where.Server)
	}
	nc := c.bus.Conn()
	return &origin{options: backup.Options{Conn: nc}, close: nc.Close}, nil
}

// accountOf is the account of the context's user, to which the streams belong.
func accountOf(where connection) (string, error) {
	if where.Credentials == "" {
		return backup.GlobalAccount, nil
	}
	user, err := readUser(where.Credentials)
	if err != nil {
		return "", err
	}
	clear(user.seed)
	claims, err := jwt.DecodeUserClaims(user.jwt)
	if err != nil {
		return "", fmt.Errorf("credentials %s: %w", where.Credentials, err)
	}
	return claims.IssuerAccount, nil
}
