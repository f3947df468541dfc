package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"chandler/events/enrolment"
)

// tokenVariable may hold the token. It is taken out of the environment before any program is started.
const tokenVariable = "CHANDLER_TOKEN"

// maxTokenFile is more than any token takes, in bytes.
const maxTokenFile = 64 << 10

var errNoToken = errors.New("no token: give it as --token-file FILE (- is standard input), in the environment variable CHANDLER_TOKEN, or on standard input; " +
	"`chandler token create` makes one")

// tokenSource reads the token, only when it is needed.
type tokenSource func() (enrolment.Token, error)

// tokenFrom reads the token from a file ("-": standard input), else from the environment, else, if piped says
// so, from a standard input that is not a terminal. It is a secret, so that it is never an argument; what the
// environment holds is taken out of it now, whether it will be needed or not.
//
// A file that others may read is named on warn.
func tokenFrom(file string, stdin io.Reader, warn io.Writer, piped bool) (tokenSource, error) {
	variable := os.Getenv(tokenVariable)
	if err := os.Unsetenv(tokenVariable); err != nil {
		return nil, err
	}
	return func() (enrolment.Token, error) {
		if file != "" && file != "-" {
			if err := private(file, 0o600); err != nil {
				fmt.Fprintf(warn, "warning: others may read the token, which is a secret: %v\n", err)
			}
		}
		text := variable
		if file != "" || variable == "" {
			var err error
			if text, err = tokenText(file, stdin, piped); err != nil {
				return enrolment.Token{}, err
			}
		}
		return enrolment.ParseToken(text)
	}, nil
}

func tokenText(file string, stdin io.Reader, piped bool) (string, error) {
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		defer f.Close()
		stdin = f
	case file == "" && !(piped && !terminal(stdin)):
		return "", errNoToken
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	if len(text) == 0 {
		return "", errNoToken
	}
	return string(text), nil
}

func terminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
