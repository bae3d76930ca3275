"""Photos of people who do not exist, for demonstrations, tests and benchmarks.

    from face2vec import samples

    people = samples.people(40, seed=0)
    photo = people[0].photo(3)             # its fourth photo: image, faces with box and landmarks
    group = samples.group_photo(people[:5])
    samples.write("photos", people=40, photos=5, groups=8, seed=0)

The faces come from a statistical model (docs/models/faces.md), all around them is drawn. The same
seed gives the same pixels on the same machine with the same versions.
"""

from face2vec.samples.people import DrawnFace, Person, SamplePhoto, group_photo, people, write

__all__ = ["DrawnFace", "Person", "SamplePhoto", "group_photo", "people", "write"]
