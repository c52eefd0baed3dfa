package tenant

// What tests of this package look at from without.

const OriginAdopted = originAdopted
const OriginCreated = originCreated

var SuspicionOf = suspicionOf
