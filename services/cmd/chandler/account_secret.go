package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"chandler/events"
	"chandler/events/lease"
)

// maxSecret bounds a secret in bytes.
const maxSecret = lease.MaxSecret

// secretFlag is where a secret comes from: never from an argument or the environment, which others can see.
func secretFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "secret-file", "", "read the secret from this file (-: standard input)")
}

// accountSecret reads the secret of an account that proves itself by method.
func (a *app) accountSecret(cmd *cobra.Command, file, method string) ([]byte, error) {
	if method == events.ByClientCertificate && file == "" && a.interactive(cmd) {
		return nil, errors.New("a certificate and its key are several lines: give them by --secret-file, in PEM")
	}
	return a.readSecret(cmd, file)
}

// readSecret reads one line, or a whole file, without the newline at its end.
func (a *app) readSecret(cmd *cobra.Command, file string) ([]byte, error) {
	var secret []byte
	var err error
	switch {
	case file != "" && file != "-":
		var f *os.File
		if f, err = os.Open(file); err != nil {
			return nil, fmt.Errorf("read the secret: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && othersMayRead(info) {
			note(cmd.ErrOrStderr(), "WARNING: %s can be read by others (mode %04o): chmod 600 %s", file, info.Mode().Perm(), file)
		}
		secret, err = io.ReadAll(io.LimitReader(f, maxSecret+1))
	case file == "" && a.interactive(cmd):
		fmt.Fprint(cmd.ErrOrStderr(), "Secret: ")
		secret, err = term.ReadPassword(int(cmd.InOrStdin().(*os.File).Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
	default:
		secret, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxSecret+1))
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the secret: %w", err)
	case len(secret) == 0:
		return nil, errors.New("the secret is empty: type it, or give --secret-file or standard input")
	case len(secret) > maxSecret:
		return nil, fmt.Errorf("the secret is longer than %d bytes", maxSecret)
	}
	return secret, nil
}
