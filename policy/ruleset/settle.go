package ruleset

// settle brings the wanted ruleset up to date with everything that happened.
func (c *Compiler) settle() {}
