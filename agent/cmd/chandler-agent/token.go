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

// readToken reads the token from a file ("-": standard input), else from the environment, else, if piped says
// so, from a standard input that is not a terminal. It is a secret, so that it is never an argument.
func readToken(file string, stdin io.Reader, piped bool) (enrolment.Token, error) {
	text, err := tokenText(file, stdin, piped)
	if err != nil {
		return enrolment.Token{}, err
	}
	return enrolment.ParseToken(text)
}

func tokenText(file string, stdin io.Reader, piped bool) (string, error) {
	variable := os.Getenv(tokenVariable)
	if err := os.Unsetenv(tokenVariable); err != nil {
		return "", err
	}
	switch {
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		defer f.Close()
		stdin = f
	case file == "" && variable != "":
		return variable, nil
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
