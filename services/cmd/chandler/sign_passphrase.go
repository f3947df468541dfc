package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"chandler/events/sign"
	"chandler/services/keyring"
)

// asking is where a command gets passphrases from: a file that --passphrase-file names, or the terminal.
type asking struct {
	app  *app
	cmd  *cobra.Command
	file string
}

// asksPassphrase gives a command that opens keys its flag.
func (a *app) asksPassphrase(cmd *cobra.Command) *asking {
	ask := &asking{app: a, cmd: cmd}
	cmd.Flags().StringVar(&ask.file, "passphrase-file", "", "file with the passphrase of encrypted keys (default: it is asked for)")
	return ask
}

// open opens a key of which the passphrase may have to be asked for.
func (q *asking) open(ref string) (sign.Signer, error) { return keyring.Open(ref, q.passphrase) }

func (q *asking) passphrase(prompt string) ([]byte, error) {
	if q.file != "" {
		data, err := readPrivate(q.file)
		if err != nil {
			return nil, fmt.Errorf("read the passphrase: %w", err)
		}
		return bytes.TrimRight(data, "\r\n"), nil
	}
	if !q.app.interactive(q.cmd) {
		return nil, errors.New("there is no terminal to ask for its passphrase: say --passphrase-file")
	}
	fmt.Fprint(q.cmd.ErrOrStderr(), prompt)
	defer fmt.Fprintln(q.cmd.ErrOrStderr())
	if f, ok := q.cmd.InOrStdin().(*os.File); ok {
		return term.ReadPassword(int(f.Fd()))
	}
	line, err := readLine(q.cmd.InOrStdin())
	return []byte(line), err
}

// newPassphrase asks for a passphrase to encrypt with; on a terminal twice.
func (q *asking) newPassphrase(prompt string) ([]byte, error) {
	secret, err := q.passphrase(prompt)
	if err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return nil, errors.New("the passphrase is empty")
	}
	if q.file != "" {
		return secret, nil
	}
	again, err := q.passphrase("The same again: ")
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(secret, again) {
		clear(secret)
		return nil, errors.New("the two passphrases differ: nothing was made")
	}
	return secret, nil
}

// forNewKeys is what the passphrase is asked for where keys are made.
const forNewKeys = "Passphrase for the new keys: "
