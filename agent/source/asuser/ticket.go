package asuser

import "os"

// ticketVariable says where the tickets of Kerberos are.
const ticketVariable = "KRB5CCNAME"

// adoptTicket lets this process find the tickets that the user's other processes know of, where they are not in the usual
// place: what logged the user on told them alone. Only the user's own processes are looked at, with the user's own rights.
func adoptTicket() {
	if os.Getenv(ticketVariable) != "" {
		return
	}
	if name := findTicket(os.Getenv("XDG_SESSION_ID")); name != "" {
		os.Setenv(ticketVariable, name)
	}
}
