package account

import (
	"context"
	"errors"
	"fmt"
)

// ErrNoLogon says that this operating system has no logons that give a token.
var ErrNoLogon = errors.New("tokens of users are for Windows only")

// LogOn logs the account that Ensure made on, on Windows, with the groups that it is in at this moment, and gives a handle
// of its token, which done closes. Its password is replaced by another first. Elsewhere the error is ErrNoLogon.
func LogOn(ctx context.Context, made Account) (token uint64, done func(), err error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	return logOn(made)
}

// LogOnWith does the same for an account whose password is given, as UTF-8; it is not kept. The controller counts it as one
// attempt, whether right or wrong: it is never repeated.
func LogOnWith(ctx context.Context, user string, secret []byte) (token uint64, done func(), err error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	if err := checkName(user); err != nil {
		return 0, nil, fmt.Errorf("log on user %q: %w", user, err)
	}
	return logOnWith(user, secret)
}
