package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// The files of a vault.
const (
	File     = "accounts.vault.json"  // the wrapped keyset
	lockFile = "accounts.vault.lock"  // empty
	clearOld = "accounts.keyset.json" // the keyset in the clear, of earlier versions
)

// purpose binds the wrapped keyset to what it is.
const purpose = "chandler keyset of accounts"

// maxKeys bounds how many keys a keyset holds, which are several only while a rekeying is not finished.
const maxKeys = 8

// ErrUnfinished: so many rekeyings were begun and none finished that no further key is added.
var ErrUnfinished = errors.New("earlier rekeyings have not finished yet: look why in the health of credentials")

// Options of a vault. All but Former and Now are needed.
type Options struct {
	Dir    string  // holds the keyset file; made with mode 0700
	Key    Wrapper // wraps the keyset
	Former Wrapper // may have wrapped it until now; nil: only Key
	Log    *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Vault seals and opens secrets. It may be used from several goroutines.
type Vault struct {
	dir         string
	key, former Wrapper
	log         *slog.Logger
	now         func() time.Time
	reading     chan struct{} // holds one token while nobody reads a changed keyset, or puts one in its place
	held        atomic.Pointer[held]
}

// held is what was read last.
type held struct {
	*keys
	file  []byte // the keyset file, as it was stored
	since time.Time
}

// State of a vault.
type State struct {
	Key    string    // id of the key that seals
	Since  time.Time // when it was made
	Former int       // how many other keys there are, for what is not sealed anew yet
	KeptBy string    // name of the key-encryption key
}

// Open opens the keyset in a directory. At the very first start it makes it, with the key-encryption key if that is
// a file; one in the clear it wraps; one that is wrapped by the former key-encryption key it wraps anew.
func Open(ctx context.Context, o Options) (*Vault, error) {
	if o.Dir == "" || o.Key == nil || o.Log == nil {
		return nil, errors.New("a vault needs a directory, a key-encryption key and a log")
	}
	v := &Vault{dir: o.Dir, key: o.Key, former: o.Former, log: o.Log, now: o.Now, reading: make(chan struct{}, 1)}
	v.reading <- struct{}{}
	if v.now == nil {
		v.now = time.Now
	}
	if err := os.MkdirAll(v.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the keyset: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(v.dir, lockFile))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := v.open(ctx); err != nil {
		return nil, err
	}
	return v, v.removeRemains()
}

// open is called under the lock.
func (v *Vault) open(ctx context.Context) error {
	data, err := readPrivate(v.path(), maxEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		return v.begin(ctx)
	}
	if err != nil {
		return fmt.Errorf("open keyset %s: %w", v.path(), err)
	}
	e, err := v.load(ctx, data)
	if err != nil {
		return err
	}
	if e.KeptBy != v.key.Name() {
		if err := v.makeKey(); err != nil {
			return err
		}
		if err := v.store(ctx, v.held.Load().keys, e.Since); err != nil {
			return err
		}
		v.log.Info("the keyset of accounts is encrypted by another key now", "by", v.key.Name(), "before", e.KeptBy)
	}
	return v.finishMigration()
}

// begin makes the keyset file, from one in the clear if there is one.
func (v *Vault) begin(ctx context.Context) error {
	k, err := v.readClear()
	migrating := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		k, err = newKeys()
	}
	if err != nil {
		return fmt.Errorf("open keyset %s: %w", v.clearPath(), err)
	}
	if err := v.makeKey(); err != nil {
		return err
	}
	if err := v.store(ctx, k, v.now()); err != nil {
		return err
	}
	if migrating {
		v.log.Warn("the keyset of accounts was in the clear and is encrypted now: old backups still hold it readable", "by", v.key.Name())
		return v.finishMigration()
	}
	v.log.Info("the keyset of accounts is made", "by", v.key.Name())
	return nil
}

// makeKey makes the key-encryption key if it is of a kind that can be made, and is not there.
func (v *Vault) makeKey() error {
	if m, ok := v.key.(maker); ok {
		return m.make()
	}
	return nil
}

// load unwraps a keyset file and holds what is in it.
func (v *Vault) load(ctx context.Context, data []byte) (envelope, error) {
	e, err := parseEnvelope(data)
	if err != nil {
		return e, fmt.Errorf("open keyset %s: %w", v.path(), err)
	}
	k, err := v.unwrap(ctx, e)
	if err != nil {
		return e, fmt.Errorf("open keyset %s, which %s encrypts: %w", v.path(), e.KeptBy, err)
	}
	v.held.Store(&held{k, data, e.Since})
	return e, nil
}

// unwrap tries the key-encryption keys of the kind that the file names.
func (v *Vault) unwrap(ctx context.Context, e envelope) (*keys, error) {
	ways := []Wrapper{v.key, v.former}
	if v.former != nil && v.former.Name() == e.KeptBy {
		ways = []Wrapper{v.former, v.key}
	}
	var failures []error
	for _, w := range ways {
		if w == nil || kindOf(w.Name()) != kindOf(e.KeptBy) {
			continue
		}
		k, err := unwrapBy(ctx, w, e.Wrapped)
		if err == nil {
			return k, nil
		}
		failures = append(failures, err)
	}
	if len(failures) == 0 {
		return nil, fmt.Errorf("this program was started with %s: name the other one with --key-encryption, or once with --former-key-encryption to leave it", v.key.Name())
	}
	return nil, errors.Join(failures...)
}

func unwrapBy(ctx context.Context, w Wrapper, wrapped []byte) (*keys, error) {
	ctx, cancel := context.WithTimeout(ctx, wrapTime)
	defer cancel()
	plain, err := w.Unwrap(ctx, wrapped, []byte(purpose))
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return parseKeys(plain)
}

// store wraps a keyset, makes sure that it can be unwrapped, and puts it in the place of the one before. It is
// called under the lock.
func (v *Vault) store(ctx context.Context, k *keys, since time.Time) error {
	wrapped, err := v.wrap(ctx, k)
	if err != nil {
		return fmt.Errorf("encrypt the keyset by %s: %w", v.key.Name(), err)
	}
	data, err := envelope{Format: format, KeptBy: v.key.Name(), Since: since.UTC(), Wrapped: wrapped}.bytes()
	if err != nil {
		return err
	}
	if _, err := parseEnvelope(data); err != nil {
		return err
	}
	<-v.reading // else a reader of the former file could hold that one afterwards
	defer func() { v.reading <- struct{}{} }()
	if err := replace(v.path(), data); err != nil {
		return fmt.Errorf("store the keyset: %w", err)
	}
	v.held.Store(&held{k, data, since.UTC()})
	return nil
}

func (v *Vault) wrap(ctx context.Context, k *keys) ([]byte, error) {
	plain, err := k.bytes()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	wrapping, cancel := context.WithTimeout(ctx, wrapTime)
	defer cancel()
	wrapped, err := v.key.Wrap(wrapping, plain, []byte(purpose))
	if err != nil {
		return nil, err
	}
	if bytes.Contains(wrapped, plain) {
		clear(wrapped)
		return nil, errors.New("it gave the keyset back as it was")
	}
	again, err := v.key.Unwrap(wrapping, wrapped, []byte(purpose))
	defer clear(again)
	if err != nil {
		return nil, fmt.Errorf("it cannot open what it made: %w", err)
	}
	if !bytes.Equal(plain, again) {
		return nil, errors.New("it does not give back what it was given")
	}
	return wrapped, nil
}

// fresh is the keyset as it is stored now.
func (v *Vault) fresh(ctx context.Context) (*held, error) {
	select {
	case <-v.reading:
		defer func() { v.reading <- struct{}{} }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	data, err := readPrivate(v.path(), maxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("open keyset %s: %w", v.path(), err)
	}
	if h := v.held.Load(); bytes.Equal(h.file, data) {
		return h, nil
	}
	if _, err := v.load(ctx, data); err != nil {
		return nil, err
	}
	return v.held.Load(), nil
}

// Seal encrypts one account's secret of one version, by the newest key. Without the keyset file it is refused: what
// only this process could open would be lost with it.
func (v *Vault) Seal(ctx context.Context, account string, version int, secret []byte) ([]byte, error) {
	h, err := v.fresh(ctx)
	if err != nil {
		return nil, err
	}
	return h.aead.Encrypt(secret, binding(account, version))
}

// Unseal decrypts it. The caller clears what it gets.
func (v *Vault) Unseal(ctx context.Context, account string, version int, sealed []byte) ([]byte, error) {
	id, ok := keyOf(sealed)
	if !ok {
		return nil, errors.New("it is not what a vault seals")
	}
	h := v.held.Load()
	if !h.ids[id] { // another replica may have made the key
		var err error
		if h, err = v.fresh(ctx); err != nil {
			return nil, err
		}
	}
	if !h.ids[id] {
		return nil, fmt.Errorf("it is sealed by key %s, which is not in the keyset", keyName(id))
	}
	secret, err := h.aead.Decrypt(sealed, binding(account, version))
	if err != nil {
		return nil, fmt.Errorf("it is damaged, or not the secret of account %s, version %d", account, version)
	}
	return secret, nil
}

// Check says whether a sealed secret belongs to the account and version and is whole.
func (v *Vault) Check(ctx context.Context, account string, version int, sealed []byte) error {
	secret, err := v.Unseal(ctx, account, version, sealed)
	clear(secret)
	return err
}

// Current says whether something is sealed by the key that seals now, as far as this replica knows.
func (v *Vault) Current(sealed []byte) bool {
	id, ok := keyOf(sealed)
	return ok && id == v.held.Load().primary
}

// binding is the associated data. Names hold no zero bytes.
func binding(account string, version int) []byte {
	return []byte("chandler account\x00" + account + "\x00" + strconv.Itoa(version))
}

// State is that of the keyset as it is stored now.
func (v *Vault) State(ctx context.Context) (State, error) {
	h, err := v.fresh(ctx)
	if err != nil {
		return State{}, err
	}
	return v.state(h), nil
}

func (v *Vault) state(h *held) State {
	return State{Key: keyName(h.primary), Since: h.since, Former: len(h.ids) - 1, KeptBy: v.key.Name()}
}

// AddKey adds a key to the keyset, by which every replica seals from now on. What is sealed stays readable.
func (v *Vault) AddKey(ctx context.Context) (State, error) {
	return v.change(ctx, func(h *held) (*keys, time.Time, error) {
		if len(h.ids) >= maxKeys {
			return nil, time.Time{}, ErrUnfinished
		}
		k, err := h.withNew()
		return k, v.now(), err
	})
}

// Retire removes all keys but the one that seals, if that still is the given one. Call it when everything is sealed
// by that key, and nobody can be about to store what he sealed by another.
func (v *Vault) Retire(ctx context.Context, key string) (State, error) {
	return v.change(ctx, func(h *held) (*keys, time.Time, error) {
		if keyName(h.primary) != key || len(h.ids) == 1 {
			return h.keys, h.since, nil
		}
		k, err := h.primaryOnly()
		return k, h.since, err
	})
}

// change stores another keyset, unless edit gives back the one that there is.
func (v *Vault) change(ctx context.Context, edit func(*held) (*keys, time.Time, error)) (State, error) {
	unlock, err := lock(ctx, filepath.Join(v.dir, lockFile))
	if err != nil {
		return State{}, err
	}
	defer unlock()
	h, err := v.fresh(ctx)
	if err != nil {
		return State{}, err
	}
	k, since, err := edit(h)
	if err != nil {
		return State{}, err
	}
	if k != h.keys {
		if err := v.store(ctx, k, since); err != nil {
			return State{}, err
		}
	}
	return v.state(v.held.Load()), nil
}

func (v *Vault) path() string      { return filepath.Join(v.dir, File) }
func (v *Vault) clearPath() string { return filepath.Join(v.dir, clearOld) }
