package ruleset

// attached is an attachment and what of it is in the ruleset.
type attached struct {
	Attachment
}
