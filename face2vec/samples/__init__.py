"""Photos of people who do not exist, for demonstrations, tests and benchmarks.

    from face2vec import samples

    people = samples.people(40, seed=0)
    photo = people[0].photo(3)             # fourth photo: image, faces with box and landmarks
    group = samples.group_photo(people[:5])
    samples.write("photos", people=40, photos=5, groups=8, seed=0)

A statistical model (docs/models/faces.md) generates the faces; their surroundings are drawn. Equal
seeds give equal pixels on the same machine with the same versions of packages.
"""

from face2vec.samples.people import DrawnFace, Person, SamplePhoto, group_photo, people, write

__all__ = ["DrawnFace", "Person", "SamplePhoto", "group_photo", "people", "write"]
