"""One seed's search: a child that holds the method, and a coordinator that answers it."""
