"""Operations on containers and networks: the class Engine and what it is made of."""
